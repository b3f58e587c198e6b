"""What the sweep itself remembers of each trial: its sample, whether it has ended, and why it failed.

    <runs>/<sweep>/journal/<trial id>.json

Written as things happen, so it is right after a kill at any moment; Ray Tune saves its own state only now and then.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune

from didact.files import write_json
from didact.logs import get_logger

_LOG = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One trial."""

    trial_id: str
    sample: dict[str, Any]
    ended: bool = False
    """Finished or stopped early; not when it failed."""
    error: str | None = None


class Journal:
    """The journal of a sweep folder; any process may read it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self) -> list[Entry]:
        """All trials begun so far, by id."""
        return [Entry(**json.loads(file.read_text(encoding="utf-8"))) for file in sorted(self._folder.glob("*.json"))]

    def find(self, trial_id: str) -> Entry | None:
        """One trial, None before it has begun."""
        file = self._folder / f"{trial_id}.json"
        return Entry(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def begin(self, trial_id: str, sample: dict[str, Any]) -> None:
        """A trial starts, perhaps again; one that has ended stays ended."""
        known = self.find(trial_id)
        self._write(replace(known, error=None) if known else Entry(trial_id, sample))

    def end(self, trial_id: str) -> None:
        """A trial came to its end or was stopped early."""
        self._write(replace(self._known(trial_id), ended=True))

    def fail(self, trial_id: str, error: str) -> None:
        """A trial failed."""
        self._write(replace(self._known(trial_id), ended=False, error=error))

    def forget(self, trial_id: str) -> None:
        """A trial left nothing, and another one has its draw."""
        (self._folder / f"{trial_id}.json").unlink()

    def close(self, trials: int, why: str) -> None:
        """No more than these trials will be begun."""
        write_json(self._closed, {"trials": trials, "why": why})

    def closed(self) -> tuple[int, str] | None:
        """Number of trials that the search was ended with before it had all, and why."""
        if not self._closed.is_file():
            return None
        kept = json.loads(self._closed.read_text(encoding="utf-8"))
        return kept["trials"], kept["why"]

    def reopen(self) -> None:
        """The search is given more trials."""
        self._closed.unlink(missing_ok=True)

    @property
    def _closed(self) -> Path:
        return self._folder.parent / "closed.json"

    def _known(self, trial_id: str) -> Entry:
        entry = self.find(trial_id)
        assert entry is not None, f"trial {trial_id} ends before it began"
        return entry

    def _write(self, entry: Entry) -> None:
        write_json(self._folder / f"{entry.trial_id}.json", asdict(entry))


class JournalKeeper(tune.Callback):
    """Keeps the journal and tells the log, on the sweep's driver."""

    def __init__(self, journal: Journal, metric: str, alive: Callable[[], object] | None = None) -> None:
        """Holds no state of its own: Tune brings a copy back when a sweep continues.

        Args:
            journal: of the sweep.
            metric: name of the first goal.
            alive: called whenever something happens.
        """
        self._journal, self._metric, self._alive = journal, metric, alive

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Those of earlier versions told nobody that they are alive."""
        self.__dict__.update({"_alive": None, **state})

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is placed."""
        self._journal.begin(trial.trial_id, trial.config)
        _LOG.info("trial %s starts with %s", trial.trial_id, trial.config)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has measured its metric."""
        if self._alive is not None:
            self._alive()
        if self._metric in result:
            step, metric = result["step"], result[self._metric]
            _LOG.info("trial %s step %d: %s %.4f", trial.trial_id, step, self._metric, metric)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended by itself or by the scheduler."""
        self._journal.end(trial.trial_id)
        _LOG.info("trial %s has ended", trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed; the reason comes with the results."""
        _LOG.warning("trial %s failed", trial.trial_id)
