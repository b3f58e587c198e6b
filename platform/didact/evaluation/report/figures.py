"""A report's figures with what chance may be behind them: the one place that every face of a report takes them from."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from didact.evaluation.report.comparisons import in_both, macro_gain, paired
from didact.evaluation.report.facts import QuestionFacts
from didact.evaluation.results import group_names
from didact.evaluation.statistics import (
    Estimate,
    averages,
    has_better_side,
    higher_is_better,
    is_share,
    least_possible,
    mean_interval,
    wilson_interval,
)

_ERROR = "_stderr"
_REACH = 1.96
"""Standard errors on each side of a figure that hold it with 95%."""
_MACRO = "macro_"
Side = Literal["better", "worse", "same", "unclear", "unknown", ""]


@dataclass(frozen=True, slots=True)
class Point:
    """One model's figure."""

    value: float | None
    """None where the model has none."""
    low: float | None = None
    """Lower end of the 95% interval; None where nothing tells how far chance reaches."""
    high: float | None = None
    count: int = 0
    """Questions (or held-out samples) behind it."""


@dataclass(frozen=True, slots=True)
class Change:
    """Second model minus first."""

    difference: float
    low: float | None = None
    """Lower end of the paired 95% interval; None where there are no questions of both."""
    high: float | None = None
    is_unbounded: bool = False
    """So few questions that their interval has no ends, as one alone."""

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Figure:
    """The same metric of every model."""

    metric: str
    """Such as `eval/gsm8k/accuracy`."""
    points: Mapping[str, Point] = field(default_factory=dict)
    """By model, in the report's order."""
    change: Change | None = None
    """Of the second model to the first."""

    @property
    def count(self) -> int:
        """Questions behind it, of the model that has most."""
        return max((point.count for point in self.points.values()), default=0)

    @property
    def is_share(self) -> bool:
        """Whether it is written in percent."""
        return is_share(self.metric, [point.value for point in self.points.values() if point.value is not None])

    @property
    def side(self) -> Side:
        """What the change says: `unclear` where its interval holds zero, empty where no side is better."""
        if self.change is None or not has_better_side(self.metric):
            return ""
        if math.isnan(self.change.difference):
            return "unknown"
        if self.change.difference == 0:
            return "same"
        if self.change.is_unbounded or (self.change.low is not None and not self.change.shown):
            return "unclear"
        return "better" if (self.change.difference > 0) == higher_is_better(self.metric) else "worse"

    def written(self, model: str) -> str:
        """A model's figure with its interval, in few characters."""
        point = self.points[model]
        if point.value is None:
            return "-"
        if not math.isfinite(point.value):
            return "not a number"
        if point.low is None or point.high is None:
            return f"{point.value:.1%}" if self.is_share else f"{point.value:.4f}"
        if self.is_share:
            return f"{point.value:.1%} [{point.low * 100:.0f}-{point.high * 100:.0f}]"
        return f"{point.value:.4f} [{point.low:.3f}, {point.high:.3f}]"

    @property
    def written_change(self) -> str:
        """The change in few characters, with its side."""
        if self.change is None:
            return ""
        if self.side in ("same", "unknown"):
            return self.side
        told = f"{self.change.difference:+.1%}" if self.is_share else f"{self.change.difference:+.4f}"
        return f"{told} {self.side}".rstrip()


def measure(
    metric: str, name: str, asked: Sequence[QuestionFacts], models: Sequence[str], *, macro: bool = False
) -> Figure:
    """One metric over some questions.

    Args:
        metric: of the figure.
        name: as in `Given.values`.
        asked: the questions; those that a model has no value of are not counted for it.
        models: of the report.
        macro: every group weighs the same.
    """
    points = {model: _point(asked, name, model, macro=macro) for model in models}
    sides = list(models)[:2]
    both = in_both(asked, name, sides)
    if len(sides) < 2 or not both:
        return Figure(metric, points)
    if macro:
        found = macro_gain(both, name, *sides)
        return Figure(metric, points, _change(found.value, found.low, found.high))
    difference = paired(both, name, *sides)
    return Figure(metric, points, _change(difference.difference, difference.low, difference.high))


def _change(value: float, low: float, high: float) -> Change:
    unbounded = not (math.isfinite(low) and math.isfinite(high))
    return Change(value, _finite(low), _finite(high), unbounded)


def figures_of(
    metrics: Mapping[str, Mapping[str, float]], counts: Mapping[str, int], questions: Sequence[QuestionFacts]
) -> list[Figure]:
    """A report's figures; standard errors stand with what they are of.

    A figure that is a mean over questions has the interval of these, with those that share a passage as one; another
    one that of its standard error, where the task tells it.

    Args:
        metrics: model -> metric -> value.
        counts: metric -> questions behind it.
        questions: of the report.
    """
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    means = dict(_means(questions, list(metrics)))
    shown = [name for name in names if name.removesuffix(_ERROR) not in names or not name.endswith(_ERROR)]
    return [_figure(name, metrics, counts[name], means.get(name)) for name in shown]


def _means(questions: Sequence[QuestionFacts], models: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Everything that is a mean over questions of a task: of all of them, of a group, over groups."""
    tasks: dict[str, list[QuestionFacts]] = {}
    for each in questions:
        tasks.setdefault(each.task, []).append(each)
    for task, asked in tasks.items():
        groups: dict[str, list[QuestionFacts]] = {}
        for each in asked:
            groups.setdefault(each.group, []).append(each)
        named = group_names(groups)
        names = dict.fromkeys(name for each in asked for given in each.given.values() for name in given.values)
        for name in names:
            whole = f"eval/{task}/{name}"
            yield whole, measure(whole, name, asked, models)
            if len(groups) > 1:
                macro = f"eval/{task}/{_MACRO}{name}"
                yield macro, measure(macro, name, asked, models, macro=True)
            for group, mine in groups.items() if any(groups) else ():
                part = f"eval/{task}/{named[group]}/{name}"
                yield part, measure(part, name, mine, models)


def _figure(metric: str, metrics: Mapping[str, Mapping[str, float]], count: int, mean: Figure | None) -> Figure:
    points = {
        model: _stated(values, metric, count, mean.points[model] if mean is not None else None)
        for model, values in metrics.items()
    }
    if mean is not None and all(points[model] == mean.points[model] for model in points):
        return replace(mean, metric=metric)
    values = [point.value for point in points.values()][:2]
    if len(values) < 2:
        return Figure(metric, points)
    first, second = (math.nan if value is None else value for value in values)
    return Figure(metric, points, Change(second - first))


def _stated(values: Mapping[str, float], metric: str, count: int, mean: Point | None) -> Point:
    """A model's figure as its task states it, with an interval where one is known."""
    value = values.get(metric)
    if value is None:
        return Point(None, count=mean.count if mean is not None else 0)
    if mean is not None and mean.value is not None and math.isclose(mean.value, value, rel_tol=1e-9, abs_tol=1e-12):
        return mean
    error = values.get(metric + _ERROR)
    if error is not None and math.isfinite(error) and math.isfinite(value):
        return Point(value, value - _REACH * error, value + _REACH * error, count)
    if mean is None and metric.endswith("/accuracy") and 0 <= value <= 1 and count:
        # Reports that hold no questions.
        return Point(value, *wilson_interval(round(value * count), count), count)
    return Point(value, count=count)


def _point(asked: Sequence[QuestionFacts], name: str, model: str, *, macro: bool) -> Point:
    found = in_both(asked, name, [model])
    if not found:
        return Point(None)
    values, clusters = [each.given[model].values[name] for each in found], [each.stands_with for each in found]
    share = is_share(name, values)
    of: Estimate
    if macro:
        of = averages(values, [each.group for each in found], clusters, share=share).macro
    else:
        of = mean_interval(values, clusters, share=share)
    low = _finite(of.low)
    return Point(of.value, low if low is None else max(low, least_possible(name)), _finite(of.high), of.count)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
