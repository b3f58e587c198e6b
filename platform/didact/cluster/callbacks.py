"""Listeners of the loop that write the run's own record and tell Ray."""

import ray.train

from didact.runs import Run, failpoint
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


class Failpoints:
    """Gives tests a named place in each step: `DIDACT_FAILPOINT=step-rank1:kill@7`."""

    def __init__(self, run: Run, rank: int) -> None:
        self._run, self._rank = run, rank

    def on_start(self, start: int, num_steps: int) -> None:
        """Nothing fails here."""

    def on_step(self, report: StepReport) -> None:
        """After step N of this rank."""
        failpoint(f"step-rank{self._rank}", report.step, self._run.path)

    def close(self) -> None:
        """Nothing to close."""
