"""The base model and what is trained on it."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

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
    """`auto` is bfloat16 where the processor computes in it, else float32."""
    quantization: QuantizationSpec | None = None
    """Leave out for an unquantized base."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """`auto` is flash attention where it is installed and a GPU is there, else PyTorch's SDPA."""
    trust_remote_code: bool = False
    """Run Python shipped inside the model repository. Only for repositories you have read."""


class LoraSpec(Spec):
    """Low-rank adapters beside linear layers (Hu et al., 2021)."""

    method: Literal["lora"] = "lora"
    r: int = Field(default=16, ge=1, le=1024)
    """Rank of the update."""
    alpha: float = Field(default=32, gt=0)
    """Scale: the update is multiplied by alpha / r (alpha / sqrt(r) with `rslora`)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names (or name endings) of the linear layers that get an adapter, or `all-linear`."""
    rslora: bool = False
    """Rank-stabilised scale, alpha / sqrt(r) (Kalajdzievski, 2023)."""
    dora: bool = False
    """Weight-decomposed adapters (Liu et al., 2024); slower, refuses mixed-adapter batches."""


class PrefixSpec(Spec):
    """Prefix tuning: trained keys and values before every layer's own (Li and Liang, 2021)."""

    method: Literal["prefix"]
    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """Length of the trained prefix, in positions."""


class FullSpec(Spec):
    """No adapter: every weight of the base is trained."""

    method: Literal["full"]


AdapterSpec = Annotated[LoraSpec | PrefixSpec | FullSpec, Field(discriminator="method")]
ADAPTER_METHODS: tuple[str, ...] = tuple(
    get_args(spec.model_fields["method"].annotation)[0] for spec in (LoraSpec, PrefixSpec, FullSpec)
)


class WithAdapterDefault(Spec):
    """Mixin: `adapter` without `method` means LoRA."""

    @model_validator(mode="before")
    @classmethod
    def _default_method(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("adapter"), dict) and "method" not in values["adapter"]:
            return {**values, "adapter": {"method": "lora", **values["adapter"]}}
        return values
