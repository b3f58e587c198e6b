"""What the page shows of a sweep: settings of all trials, their curves, their mixtures."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from didact.preparation import NOT_CHOSEN, DataFacts
from didact.runs import Run
from didact.tracking import StepRecord, effective_records
from didact.tuning.records import TrialResult
from didact.tuning.results import SweepResult, heading_of
from didact.tuning.spaces import weighed_source

_LEAST_FOR_LOG = 20.0
"""Positive values whose largest is so many times the smallest are drawn on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """One trial with what its run folder says."""

    result: TrialResult
    source_losses: dict[str, tuple[tuple[int, float], ...]]
    """Source -> (optimizer step, loss on its held-out rows), ascending."""

    @property
    def weights(self) -> dict[str, float]:
        """Source -> share of the mixture; empty where the sweep draws no mixture."""
        drawn = {
            source: float(value)
            for path, value in self.result.values.items()
            if (source := weighed_source(path)) is not None
        }
        total = sum(drawn.values())
        return {name: value / total for name, value in drawn.items()} if total > 0 else {}


@dataclass(frozen=True, slots=True)
class Setting:
    """One dimension of the space, over all trials that have a value for it."""

    path: str
    name: str
    """Short, for headings."""
    values: dict[str, Any]
    """Trial's name -> what was drawn."""

    @property
    def is_number(self) -> bool:
        """Whether values lie on a line; truth values do not."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values.values())

    @property
    def is_log(self) -> bool:
        """Whether values spread over powers of ten; shares never count as such."""
        if weighed_source(self.path) is not None:
            return False
        numbers = list(self.values.values())
        return self.is_number and min(numbers) > 0 and max(numbers) / min(numbers) >= _LEAST_FOR_LOG

    @property
    def categories(self) -> tuple[str, ...]:
        """Different values as text, sorted."""
        return tuple(sorted({str(value) for value in self.values.values()}))


@dataclass(frozen=True, slots=True)
class Effect:
    """How much a setting tells of the metric, over the trials that measured it."""

    setting: Setting
    kind: Literal["rank correlation", "share of variance"]
    value: float
    """Spearman's rank correlation; for categories, the share of the ranks' variance that lies between them."""
    p_value: float
    """Chance of as much where the setting has no effect, by permutation."""
    num_trials: int


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """What the best trial's `choose` left of a source."""

    source: str
    by: str
    """The figure."""
    stay: int
    left_out: int


@dataclass(frozen=True, slots=True)
class SweepFacts:
    """A sweep and its trials, best first."""

    result: SweepResult
    trials: tuple[TrialFacts, ...]
    settings: tuple[Setting, ...]
    effects: tuple[Effect, ...]
    """Strongest first; empty where fewer than five trials measured the metric."""
    chosen: tuple[ChosenRows, ...] = ()
    """Of the best trial's sources, where rows were chosen by a figure."""


def sweep_facts(result: SweepResult) -> SweepFacts:
    """Read what the trials' run folders hold; a folder that is gone leaves its trial without curves."""
    trials = tuple(_trial(each) for each in result.trials)
    settings = tuple(_settings(result.trials))
    chosen = tuple(_chosen(Run(result.best.run))) if result.best else ()
    return SweepFacts(result, trials, settings, tuple(_effects(result.trials, settings)), chosen)


def _chosen(run: Run) -> Iterator[ChosenRows]:
    for source in DataFacts.read(run.data).sources if run.data.is_file() else ():
        for reason, left_out in source.rows_dropped.items():
            if reason.startswith(NOT_CHOSEN):
                yield ChosenRows(source.name, reason.removeprefix(NOT_CHOSEN), source.rows_train, left_out)


def measured(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """Trials whose metric is a number."""
    return [trial for trial in trials if trial.metric is not None and math.isfinite(trial.metric)]


def _trial(result: TrialResult) -> TrialFacts:
    file = Run(result.run).steps
    records = effective_records(file) if file.is_file() else []
    names = dict.fromkeys(name for record in records for name in record.metrics)
    sources = [name for name in names if name.startswith("eval/") and name.endswith("/loss") and name != "eval/loss"]
    return TrialFacts(
        result,
        {name.removeprefix("eval/").removesuffix("/loss"): _series(records, name) for name in sources},
    )


def _series(records: Sequence[StepRecord], metric: str) -> tuple[tuple[int, float], ...]:
    found = ((record.step, record.metrics.get(metric, math.nan)) for record in records)
    return tuple((step, value) for step, value in found if math.isfinite(value))


def _settings(trials: Sequence[TrialResult]) -> Iterator[Setting]:
    for path in dict.fromkeys(path for trial in trials for path in trial.values):
        values = {trial.name: trial.values[path] for trial in trials if trial.values.get(path) is not None}
        if values and not any(isinstance(value, list | tuple) for value in values.values()):  # schedules are no axis
            yield Setting(path, heading_of(path), values)


def _effects(trials: Sequence[TrialResult], settings: Sequence[Setting]) -> list[Effect]:
    known = measured(trials)
    found = [effect for setting in settings if (effect := _effect(setting, known)) is not None]
    return sorted(found, key=lambda effect: (effect.p_value, -abs(effect.value)))


def _effect(setting: Setting, trials: Sequence[TrialResult]) -> Effect | None:
    import numpy as np
    from scipy import stats

    pairs = [(setting.values[trial.name], trial.metric) for trial in trials if trial.name in setting.values]
    if len(pairs) < 5 or len({str(value) for value, _ in pairs}) < 2:
        return None
    ranks = stats.rankdata([metric for _, metric in pairs])
    if len(set(ranks)) < 2:
        return None
    if setting.is_number:
        drawn = stats.rankdata([float(value) for value, _ in pairs])
        tested = stats.permutation_test(
            (drawn,), lambda one: np.corrcoef(one, ranks)[0, 1], permutation_type="pairings", n_resamples=999, rng=0
        )
        return Effect(setting, "rank correlation", float(tested.statistic), float(tested.pvalue), len(pairs))
    groups = np.unique([str(value) for value, _ in pairs], return_inverse=True)[1]

    def between(order: Any) -> float:
        means = np.bincount(groups, weights=order) / np.bincount(groups)
        return float(np.var(means[groups]) / np.var(order))

    tested = stats.permutation_test(
        (ranks,), between, permutation_type="pairings", alternative="greater", n_resamples=999, rng=0
    )
    return Effect(setting, "share of variance", float(tested.statistic), float(tested.pvalue), len(pairs))
