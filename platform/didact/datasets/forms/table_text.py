"""Tables as text: Markdown, CSV, HTML or key and value. What is cut is said, and the header is never cut away."""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from didact.datasets.rows.options import Language, TableForm
from didact.datasets.rows.raw_row import BadRow

_CUT: dict[Language, tuple[str, str]] = {
    "en": (
        "[{cut} of {total} rows are left out; the first {kept} are shown]",
        "[{cut} of {total} columns are left out; the first {kept} are shown]",
    ),
    "zh": ("[共{total}行，只列出前{kept}行，省略{cut}行]", "[共{total}列，只列出前{kept}列，省略{cut}列]"),
}
_ROW: dict[Language, str] = {"en": "Row {number}", "zh": "第{number}行"}


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; every row has as many as the header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How tables are written."""

    form: TableForm = "markdown"
    language: Language = "en"
    max_rows: int | None = None
    max_columns: int | None = None


def make_table(rows: Sequence[object], title: str = "", header: Sequence[object] | None = None) -> Table:
    """A table out of lists of cells.

    Args:
        rows: lists of cells: text, numbers or null. Shorter rows are filled up with empty cells.
        title: what the table is about.
        header: names of the columns; None takes the first row.

    Raises:
        BadRow: a row that is no list, a cell that is neither text nor a number, a row longer than the header, or no
            column at all.
    """
    lists = [_cells(row) for row in ([] if header is None else [header])] + [_cells(row) for row in rows]
    if not lists or not lists[0]:
        raise BadRow("wrong_type", "the table has no column")
    width = len(lists[0])
    for number, cells in enumerate(lists[1:], start=1):
        if len(cells) > width:
            raise BadRow("wrong_columns", f"row {number} of the table has {len(cells)} cells, its header {width}")
    filled = [(*cells, *[""] * (width - len(cells))) for cells in lists]
    return Table(filled[0], tuple(filled[1:]), title)


def write_table(table: Table, layout: TableLayout) -> str:
    """A table as text, its title above and what was cut below."""
    num_rows, num_columns = len(table.rows), len(table.header)
    kept_rows = min(num_rows, layout.max_rows or num_rows)
    kept_columns = min(num_columns, layout.max_columns or num_columns)
    header = table.header[:kept_columns]
    rows = [row[:kept_columns] for row in table.rows[:kept_rows]]
    body = {"markdown": _markdown, "csv": _csv, "html": _html, "key_value": _key_value}[layout.form]
    parts = [table.title.strip()] if table.title.strip() else []
    parts.append(body(header, rows, layout.language))
    for note, total, kept in zip(
        _CUT[layout.language], (num_rows, num_columns), (kept_rows, kept_columns), strict=True
    ):
        if kept < total:
            parts.append(note.format(cut=total - kept, total=total, kept=kept))
    return "\n".join(parts)


def _cells(row: object) -> list[str]:
    if not isinstance(row, list | tuple):
        raise BadRow("wrong_type", f"a row of the table is {type(row).__name__}, expected a list")
    cells = []
    for cell in row:
        if not isinstance(cell, str | int | float | None):
            raise BadRow("wrong_type", f"a cell of the table is {type(cell).__name__}, expected text or a number")
        cells.append("" if cell is None else str(cell))
    return cells


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], _: Language) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"

    return "\n".join([line(header), "|" + " --- |" * len(header), *(line(row) for row in rows)])


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]], _: Language) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue().removesuffix("\n")


def _html(header: Sequence[str], rows: Sequence[Sequence[str]], _: Language) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell, quote=False)}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(["<table>", line(header, "th"), *(line(row, "td") for row in rows), "</table>"])


def _key_value(header: Sequence[str], rows: Sequence[Sequence[str]], language: Language) -> str:
    if not rows:
        return "; ".join(header)
    return "\n".join(
        f"{_ROW[language].format(number=number)}: "
        + "; ".join(
            f"{name} = {' '.join(cell.split())}" if name else cell for name, cell in zip(header, row, strict=True)
        )
        for number, row in enumerate(rows, start=1)
    )
