"""What is known of one trial: its draw, what it measured at which step, what it cost. From its run folder.

Searchers, tables, pages and results all read this one record.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from didact.cluster import has_trained
from didact.runs import Run
from didact.tracking import effective_records
from didact.tuning.journal import Entry
from didact.tuning.objective import Objective, costs, latest
from didact.tuning.search import trial_name, trial_values
from didact.tuning.searchers import Draw, Seen
from didact.tuning.trial import TrialPlan

Status = Literal["finished", "stopped early", "failed"]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial."""

    name: str
    values: dict[str, Any]
    """What was drawn: dotted path -> value."""
    metric: float | None
    """The first goal at its newest measurement; None when there was none."""
    steps: int
    """Optimizer steps done."""
    status: Status
    run: Path
    """The trial's run folder."""
    error: str | None = None
    """Why it failed."""
    index: int = 0
    """Number of its draw in the search, from 0."""
    origin: str = "random"
    """How the draw came about, in words."""
    expected: float | None = None
    """What the searcher's model expected of the first goal, less being better; None without a model."""
    gain: float | None = None
    """By how much that model expected it to be better than the best before it."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Every metric at its newest measurement, with what the trial cost (`cost/...`)."""
    rungs: tuple[tuple[int, float], ...] = ()
    """Step and value of the first goal, each time it was measured."""
    violations: tuple[float, ...] = ()
    """By how much each constraint is broken; at most 0 where it is kept."""
    ended: bool = True
    """Not when it runs, failed or was interrupted."""

    @property
    def allowed(self) -> bool:
        """Whether it keeps all constraints."""
        return all(each <= 0 for each in self.violations)


def read_trial(plan: TrialPlan, entry: Entry, place: int = 0) -> TrialResult:
    """From the run folder, which is right whatever Tune has heard.

    Args:
        plan: of the sweep.
        entry: of the journal.
        place: the draw's number, where the journal of an earlier version holds none.
    """
    objective = plan.search.objective
    run = Run(plan.trials_dir / trial_name(plan.search.sweep, entry.trial_id))
    records = effective_records(run.steps)
    measured = [(record.step, objective.value(record.metrics)) for record in records]
    rungs = tuple((step, value) for step, value in measured if value is not None)
    metrics = {**latest(records), **costs(records)}
    trained = has_trained(run)
    draw = entry.sample.get("draw", {})
    return TrialResult(
        name=run.name,
        values=trial_values(plan.search, entry.sample),
        metric=rungs[-1][1] if rungs else None,
        steps=records[-1].step if records else 0,
        status="failed" if entry.error else "finished" if trained else "stopped early",
        run=run.path,
        error=entry.error,
        index=draw.get("index", place),
        origin=draw.get("origin", "random"),
        expected=draw.get("expected"),
        gain=draw.get("gain"),
        metrics=metrics,
        rungs=rungs,
        violations=objective.violations(metrics),
        ended=entry.ended,
    )


def read_trials(plan: TrialPlan) -> list[TrialResult]:
    """All trials begun so far."""
    return [read_trial(plan, entry, place) for place, entry in enumerate(plan.journal.entries())]


def seen_of(trial: TrialResult, objective: Objective) -> Seen:
    """The trial as searchers see it."""
    draw = Draw(trial.index, trial.values, trial.origin, trial.expected, trial.gain)
    status: Literal["running", "ended", "failed"] = "failed" if trial.error else "ended" if trial.ended else "running"
    return Seen(draw, status, objective.losses(trial.metrics), trial.violations, trial.metrics)
