"""Bases held in 4 or 8 bits by bitsandbytes, on GPU and CPU alike."""

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import BitsAndBytesConfig, PreTrainedModel

from didact.errors import ModelError
from didact.logs import get_logger
from didact.spec import QuantizationSpec

_STACKED = 3
"""Dimensions."""
_LOG = get_logger(__name__)


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
    """Nothing, where the base's layers were quantized; a warning where its experts were not.

    Raises:
        ModelError: none was, for transformers replaces plain linear layers only and leaves families with layers of
            their own (Falcon) as they are, without a word.
    """
    if any(isinstance(module, Linear4bit | Linear8bitLt) for module in model.modules()):
        if words := unpacked_words(model):
            _LOG.warning("model.quantization does not reach %s", words)
        return
    kinds = sorted({type(module).__name__ for module in model.modules() if isinstance(module, torch.nn.Linear)})
    raise ModelError(
        f"model.quantization: bitsandbytes quantizes plain linear layers, and the {model.config.model_type} family has "
        f"its own ({', '.join(kinds)}); remove model.quantization, or choose a base of another family"
    )


def stacked_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Weights that hold several matrices in one tensor, by name: mixtures of experts keep those of a layer so.

    No linear layer bears them, so nothing that works on linear layers finds them.
    """
    return {
        name: parameter
        for prefix, module in model.named_modules()
        if not type(module).__module__.startswith(("torch.", "bitsandbytes."))
        for name, parameter in module.named_parameters(prefix, recurse=False)
        if parameter.dim() == _STACKED and min(parameter.shape) > 1
    }


def unpacked_words(model: torch.nn.Module) -> str | None:
    """What quantization leaves in full precision though it is large, in words; None where there is nothing."""
    stacked = stacked_weights(model)
    if not stacked:
        return None
    names = ", ".join(sorted({name.rpartition(".")[2] for name in stacked}))
    size, dtype = sum(each.nbytes for each in stacked.values()), next(iter(stacked.values())).dtype
    return f"{names}: experts held in one tensor, {size / 2**30:.2f} GiB, stay in {str(dtype).removeprefix('torch.')}"


def keep_unpacked(model: torch.nn.Module) -> None:
    """Stop bitsandbytes from re-packing 4-bit weights for CPUs with AVX-512 bfloat16 at the first evaluation.

    The packed form lets no gradient through, without a word, and whoever reads the weights (DoRA, FSDP2) misreads it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
