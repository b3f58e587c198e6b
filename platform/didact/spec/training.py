"""The loop, its placement on machines, and where its numbers go."""

import math
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from didact.errors import SpecError
from didact.spec.adapter import LoraSpec
from didact.spec.base import Spec
from didact.spec.sharding import ShardingSpec


class ChangeSpec(Spec):
    """Settings that hold from a step on, until another change."""

    after: int = Field(ge=1)
    """Optimizer steps that are done before."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate from there on: warm-up and schedule keep their course over the whole run, at this height."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout of the adapter from there on; of the methods `lora`, `adalora` and `vera`."""

    @model_validator(mode="after")
    def _something(self) -> "ChangeSpec":
        if self.learning_rate is None and self.dropout is None:
            raise ValueError("changes nothing; give learning_rate, dropout or both")
        return self

    @property
    def words(self) -> str:
        """For people, in one line."""
        stated = {"rate": self.learning_rate, "dropout": self.dropout}
        told = ", ".join(f"{name} {value:.4g}" for name, value in stated.items() if value is not None)
        return f"after {self.after:,} steps {told}"


class TrainingSpec(Spec):
    """The optimizer and its schedule."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; give this or `epochs`."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the mixture; give this or `steps`. One epoch is as many samples as the sources hold together."""
    learning_rate: float = Field(default=LoraSpec.suitable_rate, gt=0)
    """Peak learning rate; a recipe that states none gets what suits its method (docs/models.md), here LoRA's."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape after the warm-up; `cosine` and `linear` end at zero."""
    warmup_share: float | None = Field(default=0.03, ge=0, lt=1)
    """Share of the steps with linear warm-up, rounded up; give this or `warmup_steps`."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps with linear warm-up, instead of `warmup_share`."""
    changes: tuple[ChangeSpec, ...] = ()
    """Learning rate and dropout that change on the way, as the schedules that population based training finds do.
    Mixtures that change are `data.curriculum`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Global gradient norm above which gradients are scaled down."""
    max_skipped_steps: int = Field(default=0, ge=0)
    """Steps of the whole run that may be passed over, on all workers alike, because their loss or gradient is NaN or
    infinite; one more stops training. With 0 the first stops it."""
    global_batch_size: int = Field(default=16, ge=1)
    """Conversations per optimizer step, over all workers."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Conversations per forward pass of one worker; accumulation is derived from it."""
    seed: int = Field(default=0, ge=0)
    """Adapter initialisation and dropout."""
    base_dropout: bool = False
    """Keep the dropout that the base's own configuration states (GPT-2, OPT, Seed-OSS: 0.1). Off, the loss does not
    depend on how a step is computed. An adapter's dropout is `adapter.dropout`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, much less memory."""
    compile: bool = False
    """Put the model's blocks through `torch.compile`: faster steps after a minute or so of compiling. On processors it
    needs a C++ compiler."""
    sharding: ShardingSpec = ShardingSpec()
    """What of the model and its training state each worker holds."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between resumable checkpoints; one is also written at the end."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """Newest checkpoints kept; at least two, so that a damaged one has a predecessor."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between held-out losses during training; none when left out. A sweep needs them."""

    def num_steps(self, num_rows: int) -> int:
        """Optimizer steps of the run over sources with `num_rows` training rows together.

        Raises:
            SpecError: no step is left after `warmup_steps`.
        """
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None  # exactly one of the two is given
        steps = max(1, round(self.epochs * num_rows / self.global_batch_size))
        if self.warmup_steps is not None and self.warmup_steps >= steps:
            raise SpecError(
                f"training.warmup_steps is {self.warmup_steps}, but {self.epochs:g} epochs are {steps} steps; lower it "
                "or give training.warmup_share instead"
            )
        return steps

    def rate_at(self, step: int) -> float:
        """Peak learning rate that holds at optimizer step `step` (from 0)."""
        stated = [each.learning_rate for each in self.changes if each.after <= step and each.learning_rate is not None]
        return stated[-1] if stated else self.learning_rate

    def dropout_at(self, step: int) -> float | None:
        """The adapter's dropout at optimizer step `step` (from 0); None for the adapter's own."""
        stated = [each.dropout for each in self.changes if each.after <= step and each.dropout is not None]
        return stated[-1] if stated else None

    @property
    def changes_dropout(self) -> bool:
        """Whether the adapter's dropout changes on the way."""
        return any(each.dropout is not None for each in self.changes)

    @property
    def length(self) -> str:
        """How long the run is, in words: `120 steps` or `2 epochs`."""
        return f"{self.steps} steps" if self.steps is not None else f"{self.epochs:g} epochs"

    def is_shorter_than(self, other: "TrainingSpec") -> bool:
        """Whether `other` asks for more of the same: steps where this has steps, epochs where it has epochs."""
        if self.steps is not None:
            return other.steps is not None and self.steps < other.steps
        return self.epochs is not None and other.epochs is not None and self.epochs < other.epochs

    def num_warmup_steps(self, num_steps: int) -> int:
        """Steps of linear warm-up in a run of `num_steps`."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        assert self.warmup_share is not None  # exactly one of the two is given
        return math.ceil(self.warmup_share * num_steps)

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_the_default_share(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("warmup_steps") is not None:
            return {"warmup_share": None, **values}
        return values

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingSpec":
        if (self.steps is None) == (self.epochs is None):
            found = "neither" if self.steps is None else f"steps={self.steps}, epochs={self.epochs:g}"
            null = "; set the other to null, as training.epochs: null, or training.epochs=null on the command line"
            raise ValueError(f"give either steps or epochs; found {found}{'' if self.steps is None else null}")
        if (self.warmup_share is None) == (self.warmup_steps is None):
            both = f"warmup_steps={self.warmup_steps}, warmup_share={self.warmup_share}"
            found = "neither" if self.warmup_steps is None else both
            raise ValueError(f"give either warmup_steps or warmup_share, the other null; found {found}")
        after = [each.after for each in self.changes]
        if after != sorted(set(after)):
            raise ValueError(f"after must increase from one of changes to the next; found {after}")
        if self.steps is not None and after and after[-1] >= self.steps:
            raise ValueError(f"changes begins one after {after[-1]} steps, but there are {self.steps}; remove it")
        if self.steps is not None and self.warmup_steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be below steps ({self.steps})")
        return self


class WorkerRange(Spec):
    """Elastic workers: as many as there is room for."""

    min: int = Field(ge=1)
    """With room for fewer the run waits, and fails after `placement.start_timeout_seconds`."""
    max: int = Field(ge=1)
    """More are never used."""

    @model_validator(mode="after")
    def _ordered(self) -> "WorkerRange":
        if self.min > self.max:
            raise ValueError(f"min is {self.min}, which is above max {self.max}")
        return self


class PlacementSpec(Spec):
    """Where Ray Train puts the workers."""

    num_workers: Annotated[int, Field(ge=1)] | WorkerRange = 2
    """Data-parallel workers, a number or `{min: 1, max: 4}`; must not exceed `training.global_batch_size`. Batches and
    sample order do not depend on it."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores reserved for a worker, and its threads for matrix products on a CPU machine."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto`: a GPU per worker when the cluster has one or may start a node that has, else CPU."""
    accelerator_type: str | None = None
    """Ray's name of the GPU a worker must get, such as `A100`."""
    max_failures: int = Field(default=3, ge=0)
    """Restarts after crashed or hung workers or a lost node before the run fails."""
    max_preemptions: int = Field(default=100, ge=0)
    """Restarts after workers were taken away with notice (SIGTERM, a drained node), which costs no step."""
    hang_timeout_seconds: float = Field(default=1800, gt=0)
    """A worker without a finished step, or without an answer, for this long is killed and counts as crashed. Must be
    longer than a step with its evaluation and checkpoint."""
    resize_check_seconds: float = Field(default=60, gt=0)
    """How often a run with fewer workers than `num_workers.max` looks for room; growing costs a restart, no step."""
    start_timeout_seconds: float = Field(default=300, gt=0)
    """How long to wait for the workers' resources before failing with what was asked and what there is; what the
    cluster can never have is refused at once."""

    @model_validator(mode="after")
    def _possible(self) -> "PlacementSpec":
        if self.accelerator_type is not None and self.device == "cpu":
            raise ValueError(f"accelerator_type {self.accelerator_type!r} is a GPU, and device is 'cpu'; remove one")
        return self

    @property
    def min_workers(self) -> int:
        """Fewest workers to train with."""
        return self.num_workers.min if isinstance(self.num_workers, WorkerRange) else self.num_workers

    @property
    def max_workers(self) -> int:
        """Most workers to train with."""
        return self.num_workers.max if isinstance(self.num_workers, WorkerRange) else self.num_workers


def without_password(address: str) -> str:
    """The address of an MLflow server or database, as runs write it down.

    Raises:
        ValueError: it holds a password; says where that goes.
    """
    parts = urlsplit(address)
    if not parts.password:
        return address
    elsewhere = {
        "http": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        "postgresql": "set PGPASSWORD, or write it into ~/.pgpass",
    }.get(parts.scheme.partition("+")[0].removesuffix("s"), "give an MLflow server in front of the database")
    raise ValueError(f"found a password in the address, which runs write down; leave it out and {elsewhere}")


MlflowAddress = Annotated[str, AfterValidator(without_password)]


class TrackingSpec(Spec):
    """Where metrics and lineage go. The run's own JSON lines are always written."""

    mlflow: bool = True
    """Record the run in MLflow."""
    uri: MlflowAddress | None = None
    """MLflow server or database; default `MLFLOW_TRACKING_URI`, else a sqlite file beside the run folders."""
    experiment: str = "didact"
    """MLflow experiment."""
