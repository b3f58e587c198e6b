"""Bases held in 4 or 8 bits by bitsandbytes, on GPU and CPU alike."""

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import BitsAndBytesConfig, PreTrainedModel

from didact.errors import ModelError
from didact.spec import QuantizationSpec


def quantization_config(spec: QuantizationSpec, dtype: torch.dtype) -> BitsAndBytesConfig:
    """The transformers config of a quantized base that computes in `dtype`."""
    if spec.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.type,
        bnb_4bit_use_double_quant=spec.double,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,  # packed bytes seen as numbers of the other weights' type can be cut like them
    )


def quantization_of(model: PreTrainedModel) -> QuantizationSpec | None:
    """How a loaded base is held, as bitsandbytes tells; None for any other."""
    config = getattr(model.config, "quantization_config", None)
    if not isinstance(config, BitsAndBytesConfig):
        return None
    if config.load_in_8bit:
        return QuantizationSpec(bits=8)
    return QuantizationSpec(bits=4, type=config.bnb_4bit_quant_type, double=config.bnb_4bit_use_double_quant)


def check_quantized(model: PreTrainedModel) -> None:
    """Nothing, where the base's layers were quantized.

    Raises:
        ModelError: none was, for transformers replaces plain linear layers only and leaves families with layers of
            their own (Falcon) as they are, without a word.
    """
    if any(isinstance(module, Linear4bit | Linear8bitLt) for module in model.modules()):
        return
    kinds = sorted({type(module).__name__ for module in model.modules() if isinstance(module, torch.nn.Linear)})
    raise ModelError(
        f"model.quantization: bitsandbytes quantizes plain linear layers, and the {model.config.model_type} family has "
        f"its own ({', '.join(kinds)}); remove model.quantization, or choose a base of another family"
    )


def keep_unpacked(model: torch.nn.Module) -> None:
    """Stop bitsandbytes from re-packing 4-bit weights for CPUs with AVX-512 bfloat16 at the first evaluation.

    The packed form lets no gradient through, without a word, and whoever reads the weights (DoRA, FSDP2) misreads it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
