"""How an adapter is folded into its base, and how far the result may be from base + adapter."""

from typing import Literal

from pydantic import Field

from didact.spec.base import Spec
from didact.spec.model import QuantizationSpec


class LimitsSpec(Spec):
    """Past any of these an export is refused. Distances are between next-token distributions on the golden prompts."""

    mean_kl: float = Field(gt=0)
    """Mean Kullback-Leibler divergence from base + adapter, in nats."""
    min_top1_agreement: float = Field(ge=0, le=1)
    """Share of positions where both choose the same next token."""
    max_logit_difference: float | None = Field(default=None, gt=0)
    """Largest difference of any logit."""


class MergeSpec(Spec):
    """One export."""

    dtype: Literal["base", "float32", "bfloat16", "float16"] = "base"
    """Number format of the written weights; `base` is that of the base's files."""
    weights: Literal["trained", "original"] = "trained"
    """Of a base that was quantized in training: the weights as the adapter met them there (`trained`, exact), or
    those of the base's files (`original`, which the adapter was not fitted to)."""
    shard_gib: float = Field(default=4, gt=0)
    """Largest weight file, which also bounds the memory that merging takes."""
    requantize: QuantizationSpec | None = None
    """Hold the merged model, quantized like this, to `quantized`; left out: measure it in the quantization of the
    training, without a limit."""
    exact: LimitsSpec = LimitsSpec(mean_kl=1e-6, min_top1_agreement=0.99, max_logit_difference=1e-3)
    """Limits for weights written in float32."""
    rounded: LimitsSpec = LimitsSpec(mean_kl=0.01, min_top1_agreement=0.95)
    """Limits for weights written in half precision."""
    quantized: LimitsSpec = LimitsSpec(mean_kl=0.5, min_top1_agreement=0.6)
    """Limits where quantization stands between the two: the merged model quantized again, or `weights: original`."""
