"""Base models: found, made native, held as they are computed with, loaded.

    ModelSpec -> base_folder (bundled, local, hub, native) -> held quantized or cast once -> load_base -> frozen model

Example:
    >>> from didact.models.base import load_tokenizer
    >>> from didact.spec import ModelSpec
    >>> len(load_tokenizer(ModelSpec()))  # doctest: +SKIP
"""

from didact.models.base.load import base_fingerprint, base_folder, compute_dtype, load_base, load_tokenizer
from didact.models.base.quantize import quantization_of

__all__ = ["base_fingerprint", "base_folder", "compute_dtype", "load_base", "load_tokenizer", "quantization_of"]
