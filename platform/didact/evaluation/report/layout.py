"""How a report reads: the rows of its table, for terminals and for pages."""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from didact.display import visible
from didact.evaluation.report.facts import Given, QuestionFacts, TaskFacts
from didact.evaluation.report.figures import Figure

_WITHOUT_FIGURES = 76
_STYLES = {"better": "green", "worse": "red", "same": "dim", "unclear": "dim", "unknown": "red"}
_SHOWN_EXAMPLES = 5
INTERVALS = (
    "In brackets the 95% interval; questions about one passage count as one. A change is `unclear` where its paired "
    "interval holds zero. `macro_` figures give every group the same weight, whatever its size."
)
"""What stands below a table of figures."""
_SHOWN_TEXTS = 2
_SHOWN_REMARKS = 3
_SHOWN_CHARACTERS = 240
_LEAST_FIRST = 0.15
"""Share of verdicts for either place from which on a judge is thought to look at answers."""


def remarks(
    tasks: Sequence[TaskFacts], questions: Sequence[QuestionFacts], metrics_of: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """What stands in no figure: questions without a score, what was mended or left out in files of questions, and
    losses of a source that has the name of a task."""
    lines = []
    base = next(iter(metrics_of.values()))
    for task in tasks:
        for model, count in task.problems.items():
            if count:
                first = next(_problems(task.name, model, questions), "")
                lines.append(
                    f"{task.name}: {count:,} of {task.num_questions:,} questions have no score of {model}{first}"
                )
        lines += _judged(task, metrics_of)
        lines += [f"{task.name}: {each}" for each in task.corrections[:_SHOWN_REMARKS]]
        if (more := len(task.corrections) - _SHOWN_REMARKS) > 0:
            lines.append(
                f"{task.name}: {more:,} more {'correction is' if more == 1 else 'corrections are'} in the report"
            )
    if all(task.version for task in tasks):
        return lines  # nothing was held out
    both = [task.name for task in tasks if task.version and f"eval/{task.name}/loss" in base]
    return lines + [f"{name}/loss is of the rows that source {name} holds out, not of the task" for name in both]


def _judged(task: TaskFacts, metrics_of: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Who judges, against whom, and whether it looks at more than the places of answers."""
    judge, rival = task.judge.get("name"), task.judge.get("rival name")
    if judge is not None:
        yield f"{task.name}: judged by {judge}" + (f", compared with {rival}" if rival is not None else "")
    for model, metrics in metrics_of.items():
        first = metrics.get(f"eval/{task.name}/first_won")
        if first is not None and not _LEAST_FIRST <= first <= 1 - _LEAST_FIRST:
            side = "first" if first > 0.5 else "second"
            share = max(first, 1 - first)
            yield (
                f"{task.name}: in {share:.0%} of its verdicts on {model} the judge prefers the answer that is shown "
                f"{side}, so it tells where answers stand, hardly how good they are"
            )


def _problems(task: str, model: str, questions: Sequence[QuestionFacts]) -> Iterator[str]:
    for each in questions:
        if each.task == task and (given := each.given.get(model)) is not None and given.problem is not None:
            yield f"; the first is question {each.id}: {given.problem}"


def as_table(title: str, figures: Sequence[Figure], notes: Sequence[str] = ()) -> Table:
    """The report for a terminal."""
    caption = escape(visible("\n".join(notes))) or None
    table = Table(
        title=escape(title), box=box.SIMPLE_HEAD, caption=caption, caption_justify="left", caption_style="yellow"
    )
    if notes and not figures:
        table.min_width = _WITHOUT_FIGURES  # nothing else would make it wider than its headings
    for name in _columns(figures):
        # Names may be folded where it is narrow; half a figure would be a wrong one.
        is_name = name == "metric"
        table.add_column(name, justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold")
    for figure in figures:
        metric, *cells, last = map(escape, _cells(figure))
        style = _STYLES.get(figure.side)
        shown = metric.removeprefix("eval/")  # every metric has it, and a terminal has 80 columns
        table.add_row(shown, *cells, f"[{style}]{last}[/{style}]" if style else last)
    return table


def as_markdown(
    title: str, figures: Sequence[Figure], questions: Sequence[QuestionFacts], notes: Sequence[str] = ()
) -> str:
    """The report as a Markdown section: its table, then a few answers, changed ones first."""
    columns = _columns(figures)
    lines = [f"# {title}", "", f"| {' | '.join(columns)} |", f"|---{'|---:' * (len(columns) - 1)}|"]
    lines += [f"| {' | '.join(_cells(figure))} |" for figure in figures]
    lines += ["", INTERVALS] if any(point.low is not None for each in figures for point in each.points.values()) else []
    lines += ["", *(f"- {_short(note)}" for note in notes)] if notes else []
    # False sorts first: answers whose verdict differs are the ones worth reading.
    chosen = sorted(questions, key=lambda each: len({_mark(given) for given in each.given.values()}) == 1)
    for question in chosen[:_SHOWN_EXAMPLES]:
        lines += ["", *_told(question)]
    return "\n".join(lines) + "\n"


def _columns(figures: Sequence[Figure]) -> list[str]:
    models = list(figures[0].points) if figures else []
    return ["metric", "items", *models, *(["change"] if len(models) > 1 else [])]


def _cells(figure: Figure) -> list[str]:
    """Metric, questions, each model's value; where two models are compared, the change."""
    change = [figure.written_change] if len(figure.points) > 1 else []
    return [figure.metric, str(figure.count), *map(figure.written, figure.points), *change]


def _told(question: QuestionFacts) -> list[str]:
    told = [f"**{question.task}**: {_short(question.question)}", f"- expected: {_short(question.expected)}"]
    for model, given in question.given.items():
        texts = given.texts or (given.extracted or "",)
        told += [f"- {model} ({_mark(given)}): {_short(text)}" for text in texts[:_SHOWN_TEXTS]]
        told += [f"- and {more} more of {model}"] if (more := len(texts) - _SHOWN_TEXTS) > 0 else []
        told += [f"- of {model}: {_short(given.note)}"] if given.note else []
    return told


def _mark(given: Given) -> str:
    if given.problem is not None:
        return given.problem
    if "accuracy" not in given.values:
        return ", ".join(f"{name} {value:.2f}" for name, value in given.values.items())
    return "right" if given.values["accuracy"] == 1.0 else "wrong"


def _short(text: str) -> str:
    # One line of plain code text: an answer must not break the page that shows it.
    line = visible(" ".join(text.split()).replace("`", "'"))
    if len(line) > _SHOWN_CHARACTERS:
        line = line[:_SHOWN_CHARACTERS] + "..."
    return f"`{line}`" if line else "(empty)"
