"""`FinetuneSpec`: one recipe, one run."""

from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field, model_validator

from didact.spec.adapter import AdapterSpec, FullSpec, LoraSpec, PartialSpec, WithAdapterDefault, suitable_rate
from didact.spec.base import Spec
from didact.spec.data import DataSpec, TokensSpec
from didact.spec.evaluation import EvaluationSpec, Gsm8kTask, HeldOutTask, IfEvalTask, ReasoningGymTask, RegisterSpec
from didact.spec.model import ModelSpec
from didact.spec.training import PlacementSpec, TrackingSpec, TrainingSpec

_DOUBTFUL_RATE = 100
"""Times the rate that suits a method, from which on a rate is hardly meant."""


class FinetuneSpec(WithAdapterDefault, Spec):
    """Everything that decides a finetuning run; a YAML file under `jobs/recipes/` is one of these."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Name of the run and of its folder. The same name resumes; a fresh name is a fresh run."""
    model: ModelSpec = ModelSpec()
    """The base model."""
    adapter: AdapterSpec = LoraSpec()
    """The method and its options."""
    data: DataSpec
    """The mixture."""
    tokens: TokensSpec = TokensSpec()
    """Templates, masks, packing."""
    training: TrainingSpec
    """The loop."""
    placement: PlacementSpec = PlacementSpec()
    """Ray workers."""
    tracking: TrackingSpec = TrackingSpec()
    """MLflow."""
    evaluation: EvaluationSpec | None = EvaluationSpec()
    """What to measure afterwards; null for nothing."""
    register_as: RegisterSpec | None = None
    """Registered model that gets the adapter; leave out to register nothing."""

    @property
    def packing(self) -> bool:
        """Whether rows are packed, with `auto` resolved: methods that prepend trained positions cannot pack."""
        if self.tokens.packing == "auto":
            return not self.adapter.prepends_positions
        return self.tokens.packing

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is possible and hardly meant, in words."""
        rate, suits = self.training.learning_rate, suitable_rate(self.adapter.method)
        if rate < _DOUBTFUL_RATE * suits:
            return ()
        return (
            f"training.learning_rate is {rate:g}, {rate / suits:,.0f} times what suits {self.adapter.method} "
            f"({suits:g}); so large a rate hardly ever learns anything",
        )

    @model_validator(mode="before")
    @classmethod
    def _rate_that_suits(cls, values: Any) -> Any:
        training = values.get("training") if isinstance(values, dict) else None
        if not isinstance(training, dict) or training.get("learning_rate") is not None:
            return values
        adapter = values.get("adapter")
        method = adapter.get("method", "lora") if isinstance(adapter, dict) else getattr(adapter, "method", "lora")
        return {**values, "training": {**training, "learning_rate": suitable_rate(method)}}

    @model_validator(mode="after")
    def _possible(self) -> "FinetuneSpec":
        if self.placement.max_workers > self.training.global_batch_size:
            raise ValueError(
                f"placement.num_workers is {self.placement.max_workers} but training.global_batch_size is "
                f"{self.training.global_batch_size}; each worker needs at least one conversation per step"
            )
        _check_method(self)
        mixing, batch = self.data.online_mixing, self.training.global_batch_size
        if mixing and mixing.every_steps * batch < len(self.data.sources):
            raise ValueError(
                f"data.online_mixing.every_steps {mixing.every_steps} of {batch} samples are fewer samples than there "
                f"are sources, {len(self.data.sources)}; raise it"
            )
        reported = self._reported_metrics()
        gate = sorted(self.register_as.gate.metrics) if self.register_as else []
        if odd := [metric for metric in gate if not any(fnmatchcase(metric, known) for known in reported)]:
            known = ", ".join(sorted(reported)) or "none, since evaluation has no tasks"
            raise ValueError(
                f"register_as.gate names {odd[0]!r}, which evaluation.tasks does not report; known: {known}"
            )
        if self.register_as and self.register_as.gate.clean and self.data.contamination.policy == "allow":
            raise ValueError(
                "register_as.gate.clean asks that training leaves out questions of the evaluation, and "
                "data.contamination.policy is 'allow'; set it to drop or fail"
            )
        return self

    def _reported_metrics(self) -> set[str]:
        """Metrics that the evaluation after training will report; `*` for what only a benchmark's files tell."""
        metrics: set[str] = set()
        for task in self.evaluation.tasks if self.evaluation else ():
            if isinstance(task, ReasoningGymTask):
                metrics.add(f"eval/{task.name}/accuracy")
            elif isinstance(task, Gsm8kTask):
                metrics.add("eval/gsm8k/accuracy")
            elif isinstance(task, IfEvalTask):
                names = ("accuracy", "loose_accuracy", "instruction_accuracy", "loose_instruction_accuracy")
                metrics |= {f"eval/ifeval/{name}" for name in names}
            elif not isinstance(task, HeldOutTask):
                metrics.add(f"eval/{getattr(task, 'name', None) or task.task}/*")
            elif held_out := {f"eval/{s.name}/loss" for s in self.data.sources if s.held_out_rows}:
                metrics |= held_out | {"eval/loss"}
        return metrics


def _check_method(spec: FinetuneSpec) -> None:
    """Refuse what the method cannot do, with the reason and the field to change."""
    adapter, method = spec.adapter, f"adapter.method {spec.adapter.method!r}"
    if isinstance(adapter, FullSpec) and spec.register_as:
        raise ValueError(f"register_as publishes adapters; with {method} remove register_as")
    if adapter.prepends_positions and spec.tokens.packing is True:
        raise ValueError(
            f"{method} prepends positions to every row, so samples packed in one row would share them; "
            "set tokens.packing to auto or false"
        )
    if spec.training.gradient_checkpointing and adapter.no_gradient_checkpointing:
        raise ValueError(
            f"{method} cannot recompute activations: {adapter.no_gradient_checkpointing}; "
            "set training.gradient_checkpointing to false"
        )
    if spec.training.changes_dropout and not adapter.changeable_dropout:
        raise ValueError(
            f"{method} has no dropout that training.changes could change; lora, adalora and vera have. Remove dropout "
            "from changes"
        )
    if reason := adapter.no_sharding.get(spec.training.sharding.strategy):
        raise ValueError(
            f"{method} cannot train under training.sharding.strategy {spec.training.sharding.strategy!r}: {reason}; "
            "choose 'ddp' or 'fsdp'"
        )
    if spec.model.dtype == "float16" and spec.training.sharding.strategy.startswith("zero"):
        raise ValueError(
            "model.dtype 'float16' needs its loss scaled, and DeepSpeed clips gradients before they could be scaled "
            "back; choose training.sharding.strategy 'ddp' or 'fsdp', or another dtype"
        )
    _check_quantization(spec, method)


def _check_quantization(spec: FinetuneSpec, method: str) -> None:
    adapter, quantization = spec.adapter, spec.model.quantization
    loftq = isinstance(adapter, LoraSpec) and adapter.init == "loftq"
    if loftq and (quantization is None or quantization.bits != 4):
        raise ValueError(
            "adapter.init 'loftq' starts from the error of a 4-bit base; set model.quantization.bits to 4, "
            "or adapter.init to 'default'"
        )
    if quantization is None:
        return
    if quantization.bits == 8 and spec.training.sharding.cuts_weights:
        raise ValueError(
            f"training.sharding.strategy {spec.training.sharding.strategy!r} cuts weights over workers, and 8-bit ones "
            "lose their scales when cut; set model.quantization.bits to 4, or choose 'ddp', 'zero1' or 'zero2'"
        )
    if isinstance(adapter, FullSpec | PartialSpec):
        raise ValueError(
            f"{method} trains the base's weights, which cannot be done in {quantization.bits} bits; "
            "remove model.quantization or choose an adapter method"
        )
    if isinstance(adapter, LoraSpec):
        _check_quantized_lora(adapter, quantization.bits)
    if reason := adapter.no_quantization.get(quantization.bits):
        raise ValueError(
            f"{method} cannot train on a base in {quantization.bits} bits: {reason}; "
            "remove model.quantization or choose another method"
        )


def _check_quantized_lora(adapter: LoraSpec, bits: int) -> None:
    if adapter.init == "pissa":
        raise ValueError(
            "adapter.init 'pissa' takes the principal part out of the base's weights, which a quantized base cannot "
            "give back exactly; remove model.quantization or set adapter.init to 'loftq' or 'default'"
        )
    if adapter.init == "orthogonal":
        raise ValueError(
            "adapter.init 'orthogonal' is made in the base's number format, which has no fractions when quantized; "
            "remove model.quantization or set adapter.init to 'default'"
        )
    if adapter.dora and bits == 8:
        raise ValueError(
            "adapter.dora measures the base's weights, and PEFT loses the scales of 8-bit ones in doing so; "
            "set model.quantization.bits to 4 or adapter.dora to false"
        )
