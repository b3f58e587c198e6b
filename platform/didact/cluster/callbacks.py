"""Listeners of the loop that write the run's own record and tell Ray."""

import faulthandler
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typing_extensions import override

from didact.runs import Run
from didact.tracking import JsonLinesTracker
from didact.training import Callback, StepReport


class RunRecord(Callback):
    """Appends every step to the run's `steps.jsonl`: the record that MLflow, progress bars and tests read."""

    def __init__(self, run: Run, attempt: int) -> None:
        self._tracker = JsonLinesTracker(run.steps, attempt)

    @override
    def on_start(self, start: int, num_steps: int) -> None:
        pass

    @override
    def on_step(self, report: StepReport) -> None:
        """One line, with the loss in hexadecimal so that runs can be compared bit by bit."""
        self._tracker.log(
            report.step,
            report.metrics,
            sample_ids=list(report.sample_ids),
            loss_hex=report.metrics["train/loss"].hex(),
            **({"draws": report.draws} if report.draws else {}),
        )

    @override
    def close(self) -> None:
        pass


class Measurements(Callback):
    """Hands on what schedulers act on: evaluated steps, and those whose state is saved."""

    def __init__(self, tell: Callable[[dict[str, Any]], object]) -> None:
        """`tell` gets the step's number and metrics; what is saved already lies in the run folder."""
        self._tell = tell

    @override
    def on_start(self, start: int, num_steps: int) -> None:
        pass

    @override
    def on_step(self, report: StepReport) -> None:
        evaluated = any(name.startswith("eval/") for name in report.metrics)
        if evaluated or report.checkpointed:
            self._tell({"step": report.step, **report.metrics})

    @override
    def close(self) -> None:
        pass


class Heartbeat(Callback):
    """Ends this process, the stacks of its threads written down, when no step is finished for too long.

    A worker that is stopped, or waits for ever on a disk or a peer, keeps all others waiting in the next sum; those
    still running end themselves, and a restart follows. It acts before the timeout of a collective operation, which was
    begun later, so the same happens whichever library they communicate by.
    """

    def __init__(self, timeout_seconds: float, stacks: Path) -> None:
        """`stacks` is the file to write, which is empty until then."""
        self._timeout = timeout_seconds
        stacks.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._file = stacks, stacks.open("w", encoding="utf-8")

    @override
    def on_start(self, start: int, num_steps: int) -> None:
        """The first step may take its time."""
        self._beat()

    @override
    def on_step(self, report: StepReport) -> None:
        """So may the next."""
        self._beat()

    @override
    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        faulthandler.dump_traceback_later(self._timeout, exit=True, file=self._file)
