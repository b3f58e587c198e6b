"""What people read of a study: the page, and its tables as Markdown, comma-separated values and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

from didact.files import write_text
from didact.studies.findings import effects_of, proposals_of, scalings_of, shares_of
from didact.studies.page import render_study
from didact.studies.published import Beside, Paper, beside
from didact.studies.results import StudyResult
from didact.studies.tables import CSV_HEADINGS, tables_of


def write_report(result: StudyResult, paper: Paper | None = None) -> tuple[Path, ...]:
    """Write `study.html`, `study.md`, `study.csv` and `study.tex` into the study's folder; returns their paths.

    Args:
        result: of the study, finished or not.
        paper: whose figures are laid beside the study's, then also in `beside.csv`.

    Raises:
        RunError: nothing in the paper varies what the study varies.
    """
    tables = tables_of(result) if result.measured else []
    published = beside(result, paper) if paper is not None else []
    texts = {
        "study.html": render_study(result, published, paper),
        "study.md": markdown(result, published, paper),
        "study.csv": table_values(result),
        "study.tex": "\n".join(table.latex() for table in tables),
    }
    if published:
        texts["beside.csv"] = "table,row,column,own,printed\n" + "".join(each.csv() for each in published)
    for name, text in texts.items():
        write_text(result.folder / name, text)
    return tuple(result.folder / name for name in texts)


def table_values(result: StudyResult) -> str:
    """All tables as comma-separated values, unrounded, under one line of headings."""
    tables = tables_of(result) if result.measured else []
    return ",".join(CSV_HEADINGS) + "\n" + "".join(table.csv() for table in tables)


def markdown(result: StudyResult, published: Sequence[Beside] = (), paper: Paper | None = None) -> str:
    """All tables, the effects, published figures beside one's own, and which cells are in none of them."""
    lines = [f"# Study {result.spec.name}", ""]
    lines += [table.markdown() for table in tables_of(result)] if result.measured else []
    effects = effects_of(result)
    if effects:
        lines += ["## Effects", "", *(f"- {each}" for each in effects), ""]
    more = [*scalings_of(result), *shares_of(result)]
    if more:
        lines += ["## More of it, and what each dataset brings", "", *(f"- {each}" for each in more), ""]
    proposals = proposals_of(result)
    if proposals:
        lines += ["## What to train next", "", *(f"- {each}" for each in proposals), ""]
    if paper is not None:
        lines += ["## Beside the paper", "", f"{paper.title}. {paper.source}. Per cent; the paper's in brackets.", ""]
        lines += [each.markdown() for each in published]
    missing = [cell for cell in result.cells if cell.status != "finished"]
    if missing:
        lines += ["## In no table", ""]
        lines += [f"- {cell.name}: {cell.status}{f', {cell.error}' if cell.error else ''}" for cell in missing]
        lines.append("")
    return "\n".join(lines)
