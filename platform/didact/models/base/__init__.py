"""Base models: found, made native, held as they are computed with, loaded.

    ModelSpec -> base_folder (bundled, local, hub, native) -> held quantized or cast once -> load_base -> frozen model

Example:
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    >>> from didact.models.base import base_folder, load_base
    >>> from didact.spec import ModelSpec
    >>> LlamaForCausalLM(config).save_pretrained("tiny")
    >>> load_base(ModelSpec(base="tiny", dtype="float32")).dtype
    torch.float32
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.models.base.description import load_tokenizer
    from didact.models.base.fits import check_fits, check_stored
    from didact.models.base.load import base_fingerprint, base_folder, base_of, compute_dtype, load_base
    from didact.models.base.quantize import quantization_of

__all__ = [
    "base_fingerprint",
    "base_folder",
    "base_of",
    "check_fits",
    "check_stored",
    "compute_dtype",
    "load_base",
    "load_tokenizer",
    "quantization_of",
]

__getattr__ = lazily(__name__)
