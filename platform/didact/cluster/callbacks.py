"""Listeners of the loop that write the run's own record and tell Ray."""

import ray.train

from didact.runs import Failpoint, Run
from didact.tracking import JsonLinesTracker
from didact.training import StepReport


class RunRecord:
    """Appends every step to the run's `steps.jsonl`: the record that MLflow, progress bars and tests read."""

    def __init__(self, run: Run, attempt: int) -> None:
        self._tracker = JsonLinesTracker(run.steps, attempt)

    def on_start(self, start: int, num_steps: int) -> None:
        """Nothing to record."""

    def on_step(self, report: StepReport) -> None:
        """One line, with the loss in hexadecimal so that runs can be compared bit by bit."""
        self._tracker.log(
            report.step,
            report.metrics,
            sample_ids=list(report.sample_ids),
            loss_hex=report.metrics["train/loss"].hex(),
        )

    def close(self) -> None:
        """Close the file."""
        self._tracker.close()


class RayReport:
    """Reports to Ray Train what schedulers act on: evaluated steps, and the last one. A barrier over all workers."""

    def on_start(self, start: int, num_steps: int) -> None:
        """Nothing to report."""

    def on_step(self, report: StepReport) -> None:
        """Report evaluations and checkpoints; the checkpoint itself already lies in the run folder."""
        evaluated = any(name.startswith("eval/") for name in report.metrics)
        if evaluated or report.checkpointed:
            ray.train.report({"step": report.step, **report.metrics})

    def close(self) -> None:
        """Nothing to close."""


class Fault:
    """Strikes an armed failpoint after the step it names, as `step-rank0` or `step-rank1`."""

    def __init__(self, failpoint: Failpoint, rank: int) -> None:
        self._failpoint, self._point = failpoint, f"step-rank{rank}"

    def on_start(self, start: int, num_steps: int) -> None:
        """Nothing fails here."""

    def on_step(self, report: StepReport) -> None:
        """After this worker's part of a step."""
        self._failpoint.strike(self._point, report.step)

    def close(self) -> None:
        """Nothing to close."""
