"""The real loop over random rows, without a run folder."""

import contextlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

from didact.gpu_proof.subjects import RandomSteps
from didact.spec import MethodSpec, ShardingSpec, TrainingSpec
from didact.training import CheckpointStore, StepReport, World, train


@dataclass
class Reports:
    """Keeps what each step reports; may break the loop off after a step, as a crash would."""

    stop_after: int | None = None
    steps: list[StepReport] = field(default_factory=list)

    def on_start(self, start: int, num_steps: int) -> None:
        """A new attempt."""

    def on_step(self, report: StepReport) -> None:
        """Keep it."""
        self.steps.append(report)
        if report.step == self.stop_after:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Kept until they are asked for."""


def run_steps(
    model: torch.nn.Module,
    steps: RandomSteps,
    num_steps: int,
    dtype: torch.dtype,
    adapter: MethodSpec,
    *,
    rate: float = 1e-3,
    sharding: ShardingSpec | None = None,
    checkpoints: Path | None = None,
    stop_after: int | None = None,
    world: World | None = None,
) -> list[StepReport]:
    """Train for `num_steps` and return each step's report.

    Args:
        model: with its adapter.
        steps: what is learned.
        num_steps: optimizer steps of the whole run.
        dtype: of the products.
        adapter: the method.
        rate: constant learning rate.
        sharding: strategy.
        checkpoints: a folder to keep them in and resume from; None writes the last one away.
        stop_after: the step after which the loop is broken off.
        world: as `train` takes it.
    """
    spec = TrainingSpec(
        steps=num_steps,
        learning_rate=rate,
        schedule="constant",
        warmup_share=0.0,
        checkpoint_every=2 if checkpoints else num_steps,
        sharding=sharding or ShardingSpec(),
    )
    reports = Reports(stop_after)
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(KeyboardInterrupt):
        train(
            model,
            steps,  # type: ignore[arg-type]
            spec,
            num_steps=num_steps,
            compute_dtype=dtype,
            checkpoints=CheckpointStore(checkpoints or Path(scratch), keep=2, identity="proof"),
            adapter=adapter,
            callbacks=[reports],
            world=world,
        )
    return reports.steps
