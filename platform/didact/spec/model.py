"""The base model."""

from typing import Literal

from didact.spec.base import Spec

BUNDLED_BASE = "smollm2-135m-instruct"


class QuantizationSpec(Spec):
    """A base held in few bits by bitsandbytes; the adapter stays in full precision (QLoRA)."""

    bits: Literal[4, 8]
    """Bits per base weight."""
    type: Literal["nf4", "fp4"] = "nf4"
    """4-bit code: `nf4` for normally distributed weights, or `fp4`."""
    double: bool = True
    """Quantize the 4-bit scales as well (saves about 0.4 bit per weight)."""


class ModelSpec(Spec):
    """Which base model, and how it is held in memory."""

    base: str = BUNDLED_BASE
    """The bundled `smollm2-135m-instruct`, a local folder, or a Hugging Face hub id."""
    revision: str | None = None
    """Commit, tag or branch of a hub id; pin it for runs that must be repeatable."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is bfloat16 where the device computes in it (GPUs of compute capability 8.0 and later), else float32."""
    quantization: QuantizationSpec | None = None
    """Leave out for an unquantized base."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """`auto` is flash attention where it is installed and a GPU is there, else PyTorch's SDPA."""
    trust_remote_code: bool = False
    """Run Python shipped inside the model repository. Only for repositories you have read."""
