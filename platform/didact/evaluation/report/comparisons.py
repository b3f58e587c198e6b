"""Two models on the same questions: by how much one is better, and what these questions could have shown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from didact.evaluation.report.facts import QuestionFacts, TaskFacts
from didact.evaluation.statistics import (
    Estimate,
    PairedDifference,
    Reach,
    compare,
    corrected,
    higher_is_better,
    is_share,
    macro_difference,
    smallest_difference,
)

_Found = TypeVar("_Found", PairedDifference, Estimate)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task's answers of two models, question by question."""

    task: str
    metric: str
    before: str
    """The model that the other is compared with."""
    after: str
    gain: PairedDifference
    """By how much `after` is better, also for metrics of which less is better; above 0 is an improvement."""
    corrected_p: float
    """P-value that may be held against one limit over all tasks of the report (Holm)."""
    macro: Estimate | None
    """The same gain with every group weighing the same; None where there are no groups."""
    could_show: Reach
    """The smallest gain that so many questions show in 80 of 100 evaluations."""
    left_out: int
    """Questions without a value of one of the two."""

    @property
    def outcome(self) -> Literal["better", "worse", "not told apart"]:
        """What the interval says, and the p-value over all tasks."""
        if not self.gain.shown or self.corrected_p >= 1 - self.gain.level:
            return "not told apart"
        return "better" if self.gain.low > 0 else "worse"

    def __str__(self) -> str:
        found = self.gain
        said = f"{self.task}: {self.after} against {self.before} by {self.metric} {_span(found)} on {found.count:,}"
        macro = f", macro (each group the same weight) {_span(self.macro)}" if self.macro else ""
        return f"{said}{macro}: {self.outcome} (p {_p(self.corrected_p)} over all tasks{self._why})"

    @property
    def _why(self) -> str:
        if self.outcome != "not told apart":
            return ""
        if self.gain.shown:
            return f"; {_p(self.gain.p_value)} alone, and among so many tasks one looks so by chance"
        reach = self.could_show.difference
        return f"; a gain of {reach:.3f} would have shown" if reach < 1e9 else "; so few show nothing"


def compare_task(
    task: str, metric: str, questions: Sequence[QuestionFacts], before: str, after: str
) -> Comparison | None:
    """One task of two models; None where no question has a value of both.

    Args:
        task: its name.
        metric: as in `Given.values`.
        questions: of the report; those of other tasks are passed over.
        before: the model that the other is compared with.
        after: the other.
    """
    mine = [each for each in questions if each.task == task]
    sides = (before, after) if higher_is_better(metric) else (after, before)
    both = in_both(mine, metric, sides)
    if not both:
        return None
    gain = paired(both, metric, *sides)
    groups = [each.group for each in both]
    macro = None
    if len(set(groups)) > 1:
        macro = macro_gain(both, metric, *sides)
    reach = smallest_difference(
        gain.count,
        # One more question that changed: of no change at all nothing follows for the next.
        (gain.mean_square * gain.count + 1) / (gain.count + 1),
        right_or_wrong=gain.method == "mcnemar",
        design_effect=gain.count / gain.effective,
    )
    return Comparison(task, metric, before, after, gain, gain.p_value, macro, reach, len(mine) - len(both))


def compare_all(
    tasks: Sequence[TaskFacts], questions: Sequence[QuestionFacts], before: str, after: str
) -> tuple[Comparison, ...]:
    """Every task whose questions have values of both models, by the metric that says how good an answer is."""
    found = [compare_task(task.name, task.metric, questions, before, after) for task in tasks]
    compared = [each for each in found if each is not None]
    p_values = corrected({each.task: each.gain.p_value for each in compared})
    return tuple(replace(each, corrected_p=p_values[each.task]) for each in compared)


def in_both(questions: Sequence[QuestionFacts], metric: str, models: Sequence[str]) -> list[QuestionFacts]:
    """The questions that all of these models have a value of."""
    return [each for each in questions if all(each.value(model, metric) is not None for model in models)]


def paired(both: Sequence[QuestionFacts], metric: str, before: str, after: str) -> PairedDifference:
    """By how much one model's values lie above another's, on questions that both have a value of."""
    first, second = _values(both, metric, before, after)
    return _within(compare(first, second, [each.stands_with for each in both]), metric, [*first, *second])


def macro_gain(both: Sequence[QuestionFacts], metric: str, before: str, after: str) -> Estimate:
    """The same with every group weighing the same."""
    first, second = _values(both, metric, before, after)
    groups, clusters = [each.group for each in both], [each.stands_with for each in both]
    return _within(macro_difference(first, second, groups, clusters), metric, [*first, *second])


def _values(both: Sequence[QuestionFacts], metric: str, before: str, after: str) -> tuple[list[float], list[float]]:
    first, second = ([each.given[model].values[metric] for each in both] for model in (before, after))
    return first, second


def _within(found: _Found, metric: str, values: Sequence[float]) -> _Found:
    """Shares differ by no more than 1, whatever Student's interval says of a few of them."""
    if not math.isfinite(found.low) or not is_share(metric, values):
        return found
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _span(found: PairedDifference | Estimate) -> str:
    value = found.difference if isinstance(found, PairedDifference) else found.value
    if not math.isfinite(found.low):
        return f"{value:+.3f}, how far by chance is not known,"
    return f"{value:+.3f} [{found.low:+.3f} to {found.high:+.3f}]"
