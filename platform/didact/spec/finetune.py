"""`FinetuneSpec`: one recipe, one run."""

from pydantic import Field, model_validator

from didact.spec.base import Spec
from didact.spec.data import DataSpec, TokensSpec
from didact.spec.evaluation import EvaluationSpec, Gsm8kTask, ReasoningGymTask, RegisterSpec
from didact.spec.model import AdapterSpec, FullSpec, LoraSpec, ModelSpec, PrefixSpec, WithAdapterDefault
from didact.spec.training import PlacementSpec, TrackingSpec, TrainingSpec


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
            return not isinstance(self.adapter, PrefixSpec)
        return self.tokens.packing

    @model_validator(mode="after")
    def _possible(self) -> "FinetuneSpec":
        if self.placement.num_workers > self.training.global_batch_size:
            raise ValueError(
                f"placement.num_workers is {self.placement.num_workers} but training.global_batch_size is "
                f"{self.training.global_batch_size}; each worker needs at least one conversation per step"
            )
        if isinstance(self.adapter, FullSpec) and self.model.quantization:
            raise ValueError(
                "adapter.method 'full' trains the base's weights, which cannot be done in "
                f"{self.model.quantization.bits} bits; remove model.quantization or choose an adapter method"
            )
        if isinstance(self.adapter, FullSpec) and self.register_as:
            raise ValueError("register_as publishes adapters; with adapter.method 'full' remove register_as")
        if isinstance(self.adapter, PrefixSpec) and self.tokens.packing is True:
            raise ValueError(
                "adapter.method 'prefix' prepends positions to every row, so samples packed in one row would share "
                "them; set tokens.packing to auto or false"
            )
        if self.register_as and (odd := sorted(self.register_as.gate.keys() - self._reported_metrics())):
            known = ", ".join(sorted(self._reported_metrics())) or "none, since evaluation has no tasks"
            raise ValueError(
                f"register_as.gate names {odd[0]!r}, which evaluation.tasks does not report; known: {known}"
            )
        return self

    def _reported_metrics(self) -> set[str]:
        """Metrics that the evaluation after training will report."""
        metrics: set[str] = set()
        for task in self.evaluation.tasks if self.evaluation else ():
            if isinstance(task, ReasoningGymTask):
                metrics.add(f"eval/{task.name}/accuracy")
            elif isinstance(task, Gsm8kTask):
                metrics.add("eval/gsm8k/accuracy")
            elif held_out := {f"eval/{s.name}/loss" for s in self.data.sources if s.held_out_rows}:
                metrics |= held_out | {"eval/loss"}
        return metrics
