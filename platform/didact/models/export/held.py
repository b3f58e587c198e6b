"""Weights of a base as a quantized one holds them, worked out tensor by tensor."""

import bitsandbytes as bnb
import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from didact.spec import QuantizationSpec

_BLOCK = 64


def quantized_weights(model: PreTrainedModel, quantization: QuantizationSpec | None) -> dict[str, bool]:
    """Names of the weights that transformers would quantize, and whether each is stored transposed (GPT-2's layers)."""
    if quantization is None:
        return {}
    skipped = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    return {
        f"{name}.weight": isinstance(module, Conv1D)
        for name, module in model.named_modules()
        if (isinstance(module, Conv1D) or type(module) is torch.nn.Linear) and should_convert_module(name, skipped)
    }


def as_held(weight: torch.Tensor, quantization: QuantizationSpec, transposed: bool) -> torch.Tensor:
    """A float32 weight [out, in] after quantization and back, as bitsandbytes does both."""
    rows = weight.T.contiguous() if transposed else weight
    if quantization.bits == 8:
        codes, scales, _ = bnb.functional.int8_vectorwise_quant(rows.to(torch.float16))
        back = bnb.functional.int8_vectorwise_dequant(codes, scales)
    else:
        packed, state = bnb.functional.quantize_4bit(
            rows, blocksize=_BLOCK, compress_statistics=quantization.double, quant_type=quantization.type
        )
        back = bnb.functional.dequantize_4bit(packed, state)
    back = back.to(weight.dtype)
    return back.T.contiguous() if transposed else back
