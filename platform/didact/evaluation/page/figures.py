"""What the page shows of a report, as figures: intervals, differences, classes, lengths."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from didact.evaluation.report import Change, EvalReport, Figure, Given, Point, QuestionFacts, TaskFacts
from didact.evaluation.report.figures import measure
from didact.evaluation.statistics import higher_is_better
from didact.pages import Axis

_LEAST_AXES, _MOST_AXES = 3, 24


@dataclass(frozen=True, slots=True)
class Row:
    """The same figure of every model."""

    name: str
    """Of the task, its class, or the metric."""
    points: tuple[Point, ...]
    """In the order of the report's models."""
    top: float
    """Where a drawing ends: 1 for shares, else the largest end of an interval."""
    difference: Change | None = None
    """Second model minus first, question by question."""

    @property
    def is_share(self) -> bool:
        """Whether it is drawn and written in percent."""
        return self.top == 1.0


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """A task with its classes."""

    facts: TaskFacts
    row: Row
    better_up: bool
    """Whether more is better."""
    classes: tuple[Row, ...]
    won: int
    """Questions that the second model answered better than the first; lost: worse."""
    lost: int
    unanswered: int
    """Questions without answer or score, of any model."""

    @property
    def verdict(self) -> str:
        """Of the second model beside the first, where chance does not explain the difference."""
        found = self.row.difference
        if found is None:
            return ""
        if not found.shown:
            return "no difference shown"
        return "better" if (found.difference > 0) == self.better_up else "worse"


def task_figures(report: EvalReport) -> list[TaskFigures]:
    """Every task that asks questions, in the report's order."""
    by_task: dict[str, list[QuestionFacts]] = {}
    for question in report.questions:
        by_task.setdefault(question.task, []).append(question)
    known = {task.name: task for task in report.tasks}
    return [_figures(report, known.get(name) or _unknown(name, asked), asked) for name, asked in by_task.items()]


def _unknown(name: str, asked: Sequence[QuestionFacts]) -> TaskFacts:
    """Reports of earlier versions say nothing of their tasks."""
    return TaskFacts(name, version="", metric="accuracy", num_questions=len(asked), seconds=0.0)


def _figures(report: EvalReport, facts: TaskFacts, asked: Sequence[QuestionFacts]) -> TaskFigures:
    models = list(report.models)
    better_up = higher_is_better(facts.metric)
    changes = [
        change if better_up else -change for question in asked if (change := _change(question, facts.metric, models))
    ]
    # Parts of a task that have another metric have their figures among all others.
    of_metric = [each for each in asked if any(facts.metric in given.values for given in each.given.values())]
    groups = list(dict.fromkeys(question.group for question in of_metric if question.group))
    classes = [(group, [each for each in asked if each.group == group]) for group in groups]
    return TaskFigures(
        facts=facts,
        row=_row(report, facts.name, facts.metric, asked),
        better_up=better_up,
        classes=_on_one_axis(_row(report, group, facts.metric, of) for group, of in classes if len(groups) > 1),
        won=sum(change > 0 for change in changes),
        lost=sum(change < 0 for change in changes),
        unanswered=sum(any(given.problem is not None for given in each.given.values()) for each in asked),
    )


def _change(question: QuestionFacts, metric: str, models: Sequence[str]) -> float | None:
    if len(models) < 2:
        return None
    first, second = (question.given[model].values.get(metric) for model in models[:2])
    return None if first is None or second is None else second - first


def _row(report: EvalReport, name: str, metric: str, asked: Sequence[QuestionFacts]) -> Row:
    """A task or a class of one; where it is no mean of its questions, as the report states it."""
    of = f"eval/{name}/{metric}"
    found = measure(of, metric, asked, list(report.models))
    if all(point.value is None for point in found.points.values()):
        found = next((each for each in report.figures if each.metric == of), found)
    return _as_row(name, found)


def _as_row(name: str, figure: Figure) -> Row:
    points = tuple(figure.points.values())
    change = figure.change if figure.change is not None and figure.change.low is not None else None
    return Row(name, points, _top(figure), change)


def _top(figure: Figure) -> float:
    if figure.is_share:
        return 1.0
    points = figure.points.values()
    ends = [abs(end) for point in points for end in (point.value, point.low, point.high) if end is not None]
    top = max((end for end in ends if end == end), default=0.0)
    return top if top not in (0.0, 1.0) else 1.0001


def _on_one_axis(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows whose bars can be held against each other."""
    found = tuple(rows)
    return tuple(replace(row, top=max(each.top for each in found)) for row in found)


def losses(report: EvalReport) -> list[Row]:
    """Losses on held-out rows by source, the mean over all tokens last; those of tasks with questions are theirs."""
    of_questions = {q.task for q in report.questions if any("loss" in given.values for given in q.given.values())}
    names = [(each.metric.split("/"), each) for each in report.figures]
    found = [each for parts, each in names if parts[-1] == "loss" and parts[1] not in of_questions]
    rows = [_as_row(each.metric.removeprefix("eval/").removesuffix("/loss"), each) for each in found]
    return [replace(row, name="all rows") if row.name == "loss" else row for row in _on_one_axis(rows)]


def all_figures(report: EvalReport) -> list[Row]:
    """Every metric of the report."""
    return [_as_row(each.metric.removeprefix("eval/"), each) for each in report.figures]


def radars(tasks: Sequence[TaskFigures]) -> Iterator[tuple[str, list[Axis]]]:
    """Tasks whose classes are shares, each with an axis a class; and one over tasks, where there are enough."""
    shares = [task for task in tasks if task.row.is_share and task.better_up]
    if _LEAST_AXES <= len(shares) <= _MOST_AXES:
        yield "all tasks", [_axis(task.row) for task in shares]
    for task in shares:
        if _LEAST_AXES <= len(task.classes) <= _MOST_AXES:
            yield task.facts.name, [_axis(row) for row in task.classes]


def _axis(row: Row) -> Axis:
    return Axis(row.name, tuple(point.value for point in row.points))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Answers of one model by their tokens."""

    model: str
    counts: tuple[int, ...]
    """Answers in each bin."""
    median: float
    mean_by_bin: tuple[float | None, ...]
    """Mean of the tasks' own metrics, where these are shares; None where a bin is empty."""


def lengths(report: EvalReport, tasks: Sequence[TaskFigures], edges: Sequence[int]) -> list[Lengths]:
    """Lengths of generated answers; nothing where none were generated or counted."""
    metrics = {task.facts.name: task.facts.metric for task in tasks if task.row.is_share and task.better_up}
    found = []
    for model in report.models:
        answers = [(each.given[model], metrics.get(each.task)) for each in report.questions]
        written = [(given, metric) for given, metric in answers if given.texts and given.num_tokens]
        if not written:
            continue
        bins: list[list[float]] = [[] for _ in edges[1:]]
        counts = [0] * (len(edges) - 1)
        for given, metric in written:
            place = next((at for at, edge in enumerate(edges[1:]) if _tokens(given) < edge), len(counts) - 1)
            counts[place] += 1
            if metric is not None and metric in given.values:
                bins[place].append(given.values[metric])
        tokens = sorted(_tokens(given) for given, _ in written)
        means = tuple(sum(each) / len(each) if each else None for each in bins)
        found.append(Lengths(model, tuple(counts), float(tokens[len(tokens) // 2]), means))
    return found


def _tokens(given: Given) -> float:
    """Of one answer, where several were drawn or probed: their mean."""
    return given.values.get("answer_tokens", given.num_tokens / len(given.texts))
