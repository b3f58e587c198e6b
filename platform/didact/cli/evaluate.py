"""`didact evaluate`: figures on the terminal, and on the page, as JSON or as Markdown where files are asked for."""

import contextlib
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from didact.cli.data import Overrides
from didact.connect import begin_early
from didact.display import terminal, visible
from didact.errors import EvaluationIncomplete, SpecError
from didact.spec import EvaluateSpec, load_spec

if TYPE_CHECKING:
    from didact.evaluation import EvalReport

_REPORT_FIELDS = ("metrics_of", "base_id")
"""Of today's reports, and of those of earlier versions."""


def evaluate(
    config: Annotated[
        Path, typer.Argument(help="An evaluation, such as jobs/evaluations/demo.yaml, or the report.json of one")
    ],
    overrides: Overrides = None,
    page: Annotated[Path | None, typer.Option(help="HTML file to write: figures, classes, every answer")] = None,
    json: Annotated[Path | None, typer.Option(help="JSON file to write: the whole report")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Markdown file to write: the table and a few answers")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the figures so far with their intervals")] = False,
) -> None:
    """Measure a base, and an adapter beside it."""
    from didact.files import check_output, write_text

    is_report = _is_report(config)
    if is_report and overrides:
        raise SpecError(f"{config} is a report; nothing in it can be changed, found {' '.join(overrides)}")
    for wanted in (page, json, markdown):
        if wanted is not None:
            check_output(wanted)
    report = _stored(config) if is_report else _measured(config, overrides, watch=watch)
    console = terminal()
    console.print(report.table())
    if page is not None:
        from didact.evaluation.page import render_evaluation

        write_text(page, render_evaluation(report))
    if json is not None:
        report.save(json)
    if markdown is not None:
        write_text(markdown, report.markdown())
    for written in (page, json, markdown):
        if written is not None:
            console.print(f"written: {written}", highlight=False, markup=False, soft_wrap=True)
    if not is_report:
        _check_complete(report)


def _check_complete(report: "EvalReport") -> None:
    """Whoever reads the exit code alone must not take figures of some questions for those of all.

    Raises:
        EvaluationIncomplete: a question got no answer or no score; says of each task how many, and why the first.
    """
    if report.is_complete:
        return
    lines = []
    for task in report.tasks:
        for model, count in task.problems.items():
            if count:
                mine = (each.given.get(model) for each in report.questions if each.task == task.name)
                why = next((given.problem for given in mine if given is not None and given.problem), "")
                lines.append(
                    f"{task.name}, {model}: {count:,} of {task.num_questions:,} questions, the first: {visible(why)}"
                )
    raise EvaluationIncomplete(
        "some questions got no answer or no score, and figures are of the others alone. The same command asks again "
        "what has no answer and keeps the answers that are there, also those that nobody can read (keep_days: 0 of an "
        "endpoint asks anew).\n" + "\n".join(lines)
    )


def _is_report(path: Path) -> bool:
    """An evaluation may be written in JSON as well."""
    if path.suffix != ".json" or not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    try:
        values = loads(text)
    except ValueError:
        return any(f'"{name}":' in text for name in _REPORT_FIELDS)  # half of one is a report that cannot be read
    return isinstance(values, dict) and any(name in values for name in _REPORT_FIELDS)


def _stored(path: Path) -> "EvalReport":
    from didact.evaluation import EvalReport

    return EvalReport.load(path)


def _measured(config: Path, overrides: list[str] | None, *, watch: bool) -> "EvalReport":
    spec = load_spec(EvaluateSpec, config, overrides or [])
    if spec.endpoint is None:
        begin_early()
    from didact.cluster import evaluate_adapter
    from didact.cluster.watching import watched

    with watched() if watch else contextlib.nullcontext() as told:
        return evaluate_adapter(spec, told)
