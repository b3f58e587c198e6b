"""What is trained on the base model: one spec per method, chosen by `adapter.method`."""

import re
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from didact.spec.base import MethodSpec, Spec


def _usable_targets(targets: str | tuple[str, ...], word: str) -> str | tuple[str, ...]:
    """Refuse text that no whole module name can match, and expressions that are none."""
    if not targets:
        raise ValueError(f"names no module; write {word}, or a list of names such as [q_proj, v_proj]")
    if isinstance(targets, str) and targets != word:
        names = re.split(r"[,\s]+", targets.strip())
        if targets.strip().lower().replace("_", "-") in ("all", "linear", "all-linear"):
            raise ValueError(f"found text {targets!r}; write {word}, or a list of names such as [q_proj, v_proj]")
        if all(re.fullmatch(r"[\w.-]+" if len(names) > 1 else r"[\w-]+", name) for name in names):
            raise ValueError(f"found text {targets!r}; write [{', '.join(names)}], or {word}")
        try:
            re.compile(targets)
        except re.error as error:
            raise ValueError(f"found {targets!r}, which is no regular expression: {error}") from None
    return targets


_Targets = Annotated[str | tuple[str, ...], AfterValidator(lambda found: _usable_targets(found, "all-linear"))]
_FoundTargets = Annotated[str | tuple[str, ...], AfterValidator(lambda found: _usable_targets(found, "auto"))]
_CUT_GRADIENTS = "it moves ranks by whole gradients, of which DeepSpeed leaves every worker a share"
_PACKED = "its update takes the shape of the base's weight matrices, which are packed in 4 bits"


class LoraSpec(MethodSpec):
    """Low-rank adapters beside linear layers (Hu et al., 2021)."""

    changeable_dropout: ClassVar[bool] = True

    method: Literal["lora"] = "lora"
    r: int = Field(default=16, ge=1, le=1024)
    """Rank of the update."""
    alpha: float = Field(default=32, gt=0)
    """Scale: the update is multiplied by alpha / r (alpha / sqrt(r) with `rslora`)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: _Targets = "all-linear"
    """Linear layers that get an adapter: a list of names or name endings, `all-linear`, or a regular expression that
    whole module names match, such as `.*[02468]\\.self_attn\\.[qv]_proj`."""
    rslora: bool = False
    """Rank-stabilised scale, alpha / sqrt(r) (Kalajdzievski, 2023)."""
    dora: bool = False
    """Weight-decomposed adapters (Liu et al., 2024); slower, refuses mixed-adapter batches."""
    init: Literal["default", "gaussian", "orthogonal", "pissa", "loftq"] = "default"
    """Start: `default` (B is zero), `gaussian` A, `orthogonal` A and B, the base's principal part (`pissa`, Meng et
    al., 2024), or the error of a 4-bit base (`loftq`, Li et al., 2023)."""
    lr_ratio_b: float = Field(default=1.0, gt=0)
    """LoRA+: learning rate of the B matrices relative to the rest (Hayou et al., 2024); 16 is a usual value."""
    train_new_tokens: bool = False
    """Also train the embeddings of the tokens that `didact vocabulary` added to the base, and of no others."""

    @model_validator(mode="after")
    def _possible(self) -> "LoraSpec":
        if self.train_new_tokens and self.init == "pissa":
            raise ValueError("init 'pissa' is saved as plain LoRA alone; with train_new_tokens choose another init")
        if self.dora and self.init in ("pissa", "loftq"):
            raise ValueError(f"dora and init {self.init!r} both decompose the base's weights; choose one of them")
        if self.init == "orthogonal" and self.r % 2:
            raise ValueError(f"init 'orthogonal' splits the rank in two halves; r is {self.r}, choose an even one")
        return self


class AdaLoraSpec(MethodSpec):
    """LoRA that moves rank to where it matters, while training (Zhang et al., 2023)."""

    suitable_rate: ClassVar[float] = 1e-2
    no_sharding: ClassVar[dict[str, str]] = {f"zero{stage}": _CUT_GRADIENTS for stage in (1, 2, 3)}
    changeable_dropout: ClassVar[bool] = True

    method: Literal["adalora"]
    init_r: int = Field(default=12, ge=2, le=1024)
    """Rank of every layer at the start."""
    target_r: int = Field(default=8, ge=1, le=1024)
    """Mean rank over the layers at the end."""
    alpha: float = Field(default=32, gt=0)
    """Scale of the update."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: _Targets = "all-linear"
    """Linear layers that get an adapter: a list of names or name endings, `all-linear`, or a regular expression that
    whole module names match, such as `.*[02468]\\.self_attn\\.[qv]_proj`."""
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps before the first rank is taken away."""
    final_share: float = Field(default=0.3, ge=0, lt=1)
    """Share of the steps, at the end, with ranks fixed."""
    interval: int = Field(default=10, ge=1)
    """Steps between two allocations."""
    orthogonal_weight: float = Field(default=0.5, ge=0)
    """Weight of the regulariser that keeps the factors orthogonal."""

    @model_validator(mode="after")
    def _possible(self) -> "AdaLoraSpec":
        if self.target_r >= self.init_r:
            raise ValueError(f"target_r ({self.target_r}) must be below init_r ({self.init_r}): ranks only shrink")
        if self.warmup_share + self.final_share >= 1:
            raise ValueError("warmup_share and final_share leave no steps to allocate ranks in; together stay below 1")
        return self


class PrefixSpec(MethodSpec):
    """Prefix tuning: trained keys and values before every layer's own (Li and Liang, 2021). P-tuning v2 is the same
    without `projection`."""

    suitable_rate: ClassVar[float] = 2e-2
    prepends_positions: ClassVar[bool] = True
    no_gradient_checkpointing: ClassVar[str | None] = "its keys and values come in a cache, which recomputing drops"

    method: Literal["prefix"]
    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """Length of the trained prefix, in positions."""
    projection: bool = False
    """Train the prefix through a two-layer network, which is thrown away afterwards."""
    projection_size: int = Field(default=128, ge=1)
    """Hidden units of that network."""


class PTuningSpec(MethodSpec):
    """P-tuning v1: trained input embeddings out of a small encoder (Liu et al., 2021)."""

    suitable_rate: ClassVar[float] = 5e-3
    prepends_positions: ClassVar[bool] = True

    method: Literal["p_tuning"]
    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """Length of the trained prompt, in positions."""
    encoder: Literal["mlp", "lstm"] = "mlp"
    """Network that makes the embeddings."""
    encoder_size: int = Field(default=128, ge=1)
    """Its hidden units."""
    encoder_layers: int = Field(default=2, ge=1, le=8)
    """Layers of the LSTM; the MLP always has two."""
    encoder_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout between the LSTM's layers."""


class PromptSpec(MethodSpec):
    """Prompt tuning: trained input embeddings before the text (Lester et al., 2021)."""

    suitable_rate: ClassVar[float] = 3e-2
    prepends_positions: ClassVar[bool] = True

    method: Literal["prompt"]
    num_virtual_tokens: int = Field(default=20, ge=1, le=1024)
    """Length of the trained prompt, in positions."""
    init: Literal["random", "vocabulary", "text"] = "random"
    """Start from noise, from embeddings of random tokens, or from those of `text`."""
    text: str | None = Field(default=None, min_length=1)
    """The text that `init: text` starts from; cut or repeated to the length."""

    @model_validator(mode="after")
    def _text(self) -> "PromptSpec":
        if (self.init == "text") != (self.text is not None):
            raise ValueError(f"init 'text' and text belong together; found init {self.init!r} and text {self.text!r}")
        return self


class Ia3Spec(MethodSpec):
    """Trained scales on keys, values and the feed-forward's hidden units (IA3, Liu et al., 2022)."""

    suitable_rate: ClassVar[float] = 1e-2

    method: Literal["ia3"]
    target_modules: _FoundTargets = "auto"
    """Linear layers whose results are scaled: a list of names or name endings, or a regular expression that whole
    module names match; `auto` finds keys, values and the feed-forward's last layer."""
    feedforward_modules: _FoundTargets = "auto"
    """Those of them whose inputs are scaled instead."""

    @model_validator(mode="after")
    def _both(self) -> "Ia3Spec":
        if (self.target_modules == "auto") != (self.feedforward_modules == "auto"):
            raise ValueError("give both target_modules and feedforward_modules, or leave both to 'auto'")
        both = self.feedforward_modules, self.target_modules
        if not any(isinstance(each, str) for each in both) and not set(both[0]) <= set(both[1]):
            raise ValueError("feedforward_modules must be among target_modules")
        return self


class VeraSpec(MethodSpec):
    """Trained scales on frozen random low-rank matrices shared by all layers (Kopiczko et al., 2023)."""

    suitable_rate: ClassVar[float] = 1e-2
    changeable_dropout: ClassVar[bool] = True

    method: Literal["vera"]
    r: int = Field(default=256, ge=1, le=4096)
    """Rank of the shared matrices."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: _Targets = "all-linear"
    """Linear layers that get an adapter: a list of names or name endings, `all-linear`, or a regular expression that
    whole module names match, such as `.*[02468]\\.self_attn\\.[qv]_proj`."""


class OftSpec(MethodSpec):
    """Orthogonal finetuning: block-diagonal rotations of the layers' inputs (Qiu et al., 2023)."""

    suitable_rate: ClassVar[float] = 5e-4

    method: Literal["oft"]
    block_size: int = Field(default=32, ge=2)
    """Size of a rotated block; lowered to a divisor of a layer's width where it is none."""
    target_modules: _Targets = "all-linear"
    """Linear layers that get an adapter: a list of names or name endings, `all-linear`, or a regular expression that
    whole module names match, such as `.*[02468]\\.self_attn\\.[qv]_proj`."""


class BoftSpec(MethodSpec):
    """Orthogonal finetuning with butterfly factors (Liu et al., 2023)."""

    suitable_rate: ClassVar[float] = 5e-4

    method: Literal["boft"]
    block_size: int = Field(default=4, ge=2)
    """Size of a block; must divide every target layer's input width."""
    butterfly_factors: int = Field(default=1, ge=1, le=8)
    """Butterfly factors; 1 is plain block-diagonal orthogonal finetuning."""
    target_modules: _Targets = "all-linear"
    """Linear layers that get an adapter: a list of names or name endings, `all-linear`, or a regular expression that
    whole module names match, such as `.*[02468]\\.self_attn\\.[qv]_proj`."""


class LohaSpec(MethodSpec):
    """Updates as Hadamard products of low-rank matrices (LoHa, Hyeon-Woo et al., 2021)."""

    suitable_rate: ClassVar[float] = 5e-3
    no_quantization: ClassVar[dict[int, str]] = {4: _PACKED}

    method: Literal["loha"]
    r: int = Field(default=8, ge=1, le=1024)
    """Rank of each factor."""
    alpha: float = Field(default=16, gt=0)
    """Scale: the update is multiplied by alpha / r."""
    target_modules: _Targets = "all-linear"
    """Linear layers that get an adapter: a list of names or name endings, `all-linear`, or a regular expression that
    whole module names match, such as `.*[02468]\\.self_attn\\.[qv]_proj`."""


class LokrSpec(MethodSpec):
    """Updates as Kronecker products (LoKr, Yeh et al., 2023)."""

    suitable_rate: ClassVar[float] = 5e-3
    no_quantization: ClassVar[dict[int, str]] = {4: _PACKED}

    method: Literal["lokr"]
    r: int = Field(default=8, ge=1, le=1024)
    """Rank of the second factor."""
    alpha: float = Field(default=16, gt=0)
    """Scale: the update is multiplied by alpha / r."""
    factor: int = Field(default=-1, ge=-1)
    """Size of the first factor; -1 for the most even split."""
    target_modules: _Targets = "all-linear"
    """Linear layers that get an adapter: a list of names or name endings, `all-linear`, or a regular expression that
    whole module names match, such as `.*[02468]\\.self_attn\\.[qv]_proj`."""


class BottleneckSpec(MethodSpec):
    """Small two-layer networks inside every block (Houlsby et al., 2019; Pfeiffer et al., 2021; He et al., 2022)."""

    suitable_rate: ClassVar[float] = 1e-3

    method: Literal["bottleneck"]
    placement: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    """After attention and feed-forward (`houlsby`), after the feed-forward only (`pfeiffer`), or beside it
    (`parallel`)."""
    reduction_factor: float | None = Field(default=None, ge=1)
    """Hidden size of the base / units of the bottleneck; 16 when neither this nor `size` is given."""
    size: int | None = Field(default=None, ge=1)
    """Units of the bottleneck; give this or `reduction_factor`."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Non-linearity between the two layers."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the network's input."""
    scale: float = Field(default=1.0, gt=0)
    """The network's result is multiplied by it; 4 is usual for `parallel`."""

    @model_validator(mode="after")
    def _one_size(self) -> "BottleneckSpec":
        if self.size is not None and self.reduction_factor is not None:
            raise ValueError("give either size or reduction_factor; both state the units of the bottleneck")
        return self


class PeftSpec(MethodSpec):
    """Any other method of the PEFT library, by its own name and options."""

    method: Literal["peft"]
    name: str = Field(pattern=r"^[A-Za-z0-9_]+$")
    """PEFT's name of the method, such as `hra` or `fourierft`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of its configuration class, checked against it before training."""


class PartialSpec(MethodSpec):
    """No adapter: some weights of the base are trained, the rest is frozen."""

    suitable_rate: ClassVar[float] = 1e-4
    trains_base: ClassVar[bool] = True

    method: Literal["partial"]
    last_n_layers: int = Field(default=0, ge=0)
    """Blocks, counted from the end, that are trained."""
    embeddings: bool = False
    """Train the input embeddings and the output layer."""

    @model_validator(mode="after")
    def _something(self) -> "PartialSpec":
        if not (self.last_n_layers or self.embeddings):
            raise ValueError("nothing would be trained; set last_n_layers, embeddings, or both")
        return self


class FullSpec(MethodSpec):
    """No adapter: every weight of the base is trained."""

    suitable_rate: ClassVar[float] = 2e-5
    trains_base: ClassVar[bool] = True

    method: Literal["full"]


_METHODS = (
    LoraSpec
    | AdaLoraSpec
    | PrefixSpec
    | PTuningSpec
    | PromptSpec
    | Ia3Spec
    | VeraSpec
    | OftSpec
    | BoftSpec
    | LohaSpec
    | LokrSpec
    | BottleneckSpec
    | PeftSpec
    | PartialSpec
    | FullSpec
)
AdapterSpec = Annotated[_METHODS, Field(discriminator="method")]
_BY_METHOD: dict[str, type[MethodSpec]] = {
    get_args(spec.model_fields["method"].annotation)[0]: spec for spec in get_args(_METHODS)
}
ADAPTER_METHODS = tuple(_BY_METHOD)


def suitable_rate(method: Any) -> float:
    """The learning rate that suits a method; LoRA's for what is no method's name."""
    return _BY_METHOD.get(str(method), LoraSpec).suitable_rate


class WithAdapterDefault(Spec):
    """Mixin: `adapter` without `method` means LoRA."""

    @model_validator(mode="before")
    @classmethod
    def _default_method(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("adapter"), dict) and "method" not in values["adapter"]:
            return {**values, "adapter": {"method": "lora", **values["adapter"]}}
        return values
