"""What came out: one task on one model, and what a report keeps of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from didact.evaluation.asks import Answer
from didact.evaluation.questions import Question, Score

_UNCLASSED = "unclassed"
"""Questions without a class beside others that have one: in no average they may be left out without a word."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One question with what a model answered and what that is worth."""

    question: Question
    answers: tuple[Answer, ...]
    """The model's own of all rounds, in the order in which they were asked; a judge's words are in the score's note."""
    score: Score


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one task measured on one model."""

    task: str
    """`held_out`, or the task's name."""
    metrics: dict[str, float]
    """Metric name, as in `eval/<task>/<metric>`, to value."""
    counts: dict[str, int]
    """Metric name to the number of questions (or held-out samples) behind it."""
    num_items: int
    """Questions of the whole task."""
    seconds: float
    """Wall time; where several models were asked at once, of all of them together."""
    scored: tuple[Scored, ...] = ()
    """Every question; empty for losses."""
    version: str = ""
    """Of the task; empty for losses."""
    metric: str = "loss"
    """Which of its metrics says how good an answer is."""
    corrections: tuple[str, ...] = ()
    judge: Mapping[str, str] = field(default_factory=dict)
    """Name and digests of the judge, where there is one, and after `rival ` of the model that answers are compared
    with."""

    @property
    def num_problems(self) -> int:
        """Questions without an answer or without a score."""
        return sum(each.score.problem is not None for each in self.scored)


def task_metrics(
    task: str, metric: str, scores: Sequence[tuple[Question, Score]], overall: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, int]]:
    """Means over questions, and where there are groups, of each group and over groups.

    Args:
        task: its name.
        metric: the one that groups have figures of.
        scores: question and score; metrics that a score does not hold are not counted for it.
        overall: figures that are no means, by metric.

    Returns:
        Metric -> value, metric -> questions behind it.
    """
    names = dict.fromkeys(name for _, score in scores for name in score.values)
    values, counts = {}, {}
    for name in (metric, *(each for each in names if each != metric)):
        found = [score.values[name] for _, score in scores if name in score.values]
        if found:
            values[f"eval/{task}/{name}"], counts[f"eval/{task}/{name}"] = sum(found) / len(found), len(found)
    groups = group_values(metric, scores)
    if len(groups) > 1:
        means = {group: sum(found) / len(found) for group, found in groups.items()}
        values[f"eval/{task}/macro_{metric}"] = sum(means.values()) / len(means)
        counts[f"eval/{task}/macro_{metric}"] = sum(map(len, groups.values()))
        named = group_names(means)
        for group, mean in means.items():
            name = f"eval/{task}/{named[group]}/{metric}"
            values[name], counts[name] = mean, len(groups[group])
    for name, value in overall.items():
        values[f"eval/{task}/{name}"], counts[f"eval/{task}/{name}"] = value, len(scores)
    return values, counts


def group_names(groups: Iterable[str]) -> dict[str, str]:
    """Group -> its part of a metric's name, in which no `/` stands; groups of one such name get numbers (`a-b-2`)."""
    named: dict[str, str] = {}
    groups = list(groups)
    taken = {group for group in groups if group and "/" not in group}
    for group in groups:
        plain = name = group.replace("/", "-") or _UNCLASSED
        number = 1
        while name != group and name in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name)
        named[group] = name
    return named


def group_values(metric: str, scores: Sequence[tuple[Question, Score]]) -> dict[str, list[float]]:
    """Group -> the values of its questions, in the order in which groups first appear; those without one are one."""
    groups: dict[str, list[float]] = {}
    for question, score in scores:
        if metric in score.values:
            groups.setdefault(question.group, []).append(score.values[metric])
    return groups
