"""What people read of a study: the page, and its tables as Markdown, comma-separated values and LaTeX."""

from pathlib import Path

from didact.files import write_text
from didact.studies.effects import effects_of
from didact.studies.page import render_study
from didact.studies.results import StudyResult
from didact.studies.tables import tables_of


def write_report(result: StudyResult) -> tuple[Path, ...]:
    """Write `study.html`, `study.md`, `study.csv` and `study.tex` into the study's folder; returns their paths."""
    tables = tables_of(result) if result.measured else []
    texts = {
        "study.html": render_study(result),
        "study.md": markdown(result),
        "study.csv": "".join(table.csv() for table in tables),
        "study.tex": "\n".join(table.latex() for table in tables),
    }
    for name, text in texts.items():
        write_text(result.folder / name, text)
    return tuple(result.folder / name for name in texts)


def markdown(result: StudyResult) -> str:
    """All tables, the effects, and which cells are in none of them."""
    lines = [f"# Study {result.spec.name}", ""]
    lines += [table.markdown() for table in tables_of(result)] if result.measured else []
    effects = effects_of(result)
    if effects:
        lines += ["## Effects", "", *(f"- {each}" for each in effects), ""]
    missing = [cell for cell in result.cells if cell.status != "finished"]
    if missing:
        lines += ["## In no table", ""]
        lines += [f"- {cell.name}: {cell.status}{f', {cell.error}' if cell.error else ''}" for cell in missing]
        lines.append("")
    return "\n".join(lines)
