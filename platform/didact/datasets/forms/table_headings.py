"""Tables whose headings have several levels -> one heading a column and one a row, each the whole path to it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

from didact.datasets.forms.table_text import Table, make_table
from didact.datasets.rows.fields import Record, inner, items, optional_text, take
from didact.datasets.rows.raw_row import BadRow

SEPARATOR = " / "
_MAX_CELLS = 1_000_000
# A year, alone or as the end of a period; or words without a number, such as a unit.
_HEADING = re.compile(
    r"(?:[^\d]*\b(?:\d{1,2},? )?)?(?:FY ?)?(?:19|20)\d\d[AEF]?(?: ?\(\w+\))?|[^\d]*[A-Za-z£$€¥%][^\d]*"
)
_REMARK = re.compile(r"[(\[].*[)\]]")
_VOID = frozenset({"br", "hr", "p", "div", "li"})


def heading_path(parts: Iterable[str]) -> str:
    """Headings from the outermost to the innermost; empty and repeated ones are left out."""
    path: list[str] = []
    for part in (" ".join(each.split()) for each in parts):
        if part and part not in path[-1:]:
            path.append(part)
    return SEPARATOR.join(path)


def tree_table(record: Record) -> dict[str, Any]:
    """A HiTab table as `header`, `rows` and `title`: a matrix `texts`, and trees of the cells that head it.

    A node of a tree is the place of its cell, and its children are headed by it. Rows too: one that sums others up
    heads them, and stands in the table itself.

    Raises:
        BadRow: a part is missing or of another type, or a heading lies outside the matrix.
    """
    texts = [_cells(row) for row in items(record, "texts")]
    num_top, num_left = (_count(record, key) for key in ("top_header_rows_num", "left_header_columns_num"))
    above = {column: path for (_, column), path in _paths(inner(record, "top_root"), texts)}
    beside = {row: path for (row, _), path in _paths(inner(record, "left_root"), texts)}
    width = max((len(row) for row in texts), default=0)
    corner = heading_path(cell for row in texts[:num_top] for cell in row[:num_left])
    header = ([corner] if num_left else []) + [above.get(column, "") for column in range(num_left, width)]
    rows = [
        ([beside.get(number, heading_path(row[:num_left]))] if num_left else []) + row[num_left:]
        for number, row in enumerate(texts[num_top:], start=num_top)
    ]
    return {"title": optional_text(record, "title"), "header": header, "rows": rows}


def web_table(page: str) -> dict[str, Any]:
    """The `header` and `rows` of an HTML table. The first rows of heading cells head the columns, else the first row.

    A cell over several rows, and a heading over several columns, stands in each of them.

    Raises:
        BadRow: it holds no row, or too many cells.
    """
    reader = _TableReader()
    reader.feed(page)
    reader.close()
    if not reader.rows:
        raise BadRow("missing_table", "the HTML holds no table row")
    grid = _spread(reader.rows)
    heads = [bool(row) and all(cell.heading or not cell.text.strip() for cell in row) for row in reader.rows]
    num_heads = next((place for place, heading in enumerate(heads) if not heading), len(heads))
    num_heads = num_heads if 0 < num_heads < len(heads) else 1
    width = max(len(row) for row in grid)
    filled = [[*row, *[""] * (width - len(row))] for row in grid]
    header = [heading_path(row[column] for row in filled[:num_heads]) for column in range(width)]
    return {"header": header, "rows": filled[num_heads:]}


def headed_table(rows: Sequence[object]) -> Table:
    """A table without a word on its headings: they are the first row, and those after it that hold years or units.

    Such a row has nothing, or a remark in brackets, in the first column. A heading above reaches over the blank cells
    to its right.

    Raises:
        BadRow: as `make_table`.
    """
    table = make_table(rows)
    num_more = next((place for place, row in enumerate(table.rows) if not _is_heading(row)), len(table.rows))
    if num_more in (0, len(table.rows)):
        return table
    heads = [table.header, *table.rows[:num_more]]
    above = [_reaching(row) for row in heads[:-1]]
    columns = zip(*above, heads[-1], strict=True)
    return Table(tuple(heading_path(column) for column in columns), table.rows[num_more:], table.title)


def _is_heading(row: Sequence[str]) -> bool:
    first, *others = (cell.strip() for cell in row)
    filled = [cell for cell in others if cell]
    return bool(filled) and (not first or bool(_REMARK.fullmatch(first))) and all(map(_HEADING.fullmatch, filled))


def _reaching(row: Sequence[str]) -> list[str]:
    reached, said = [row[0]], ""
    for cell in row[1:]:
        said = cell if cell.strip() else said
        reached.append(said)
    return reached


def _paths(root: dict[str, Any], texts: Sequence[Sequence[str]]) -> Iterator[tuple[tuple[int, int], str]]:
    """Place and heading of every node, a parent before its children."""
    waiting: list[tuple[dict[str, Any], tuple[str, ...]]] = [(root, ())]
    while waiting:
        node, outer = waiting.pop()
        place = (_place(node, "row_index"), _place(node, "column_index"))
        path = outer
        if min(place) >= 0:
            if place[0] >= len(texts) or place[1] >= len(texts[place[0]]):
                raise BadRow("wrong_columns", f"a heading at row {place[0]}, column {place[1]} is outside the table")
            path = (*outer, texts[place[0]][place[1]])
            yield place, heading_path(path)
        children = items(node, "children")
        if not all(isinstance(child, dict) for child in children):
            raise BadRow("wrong_type", "a heading's children hold something else than objects")
        waiting += [(child, path) for child in reversed(children)]


def _place(node: dict[str, Any], key: str) -> int:
    value = take(node, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRow("wrong_type", f"{key} of a heading is {type(value).__name__}, expected a whole number")
    return value


def _count(record: Record, key: str) -> int:
    value = take(record, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRow("wrong_type", f"field {key!r} is {value!r}, expected a whole number")
    return value


def _cells(row: Any) -> list[str]:
    if not isinstance(row, list) or not all(isinstance(cell, str | int | float | None) for cell in row):
        raise BadRow("wrong_type", "field 'texts' holds a row that is no list of texts and numbers")
    return ["" if cell is None else str(cell) for cell in row]


class _Cell:
    def __init__(self, heading: bool, columns: int, rows: int) -> None:
        self.heading, self.columns, self.rows, self.text = heading, columns, rows, ""


class _TableReader(HTMLParser):
    """The cells of the rows of a page; tables inside cells become part of their text."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[_Cell]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            spans = dict(attrs)
            self.rows[-1].append(_Cell(tag == "th", _span(spans.get("colspan")), _span(spans.get("rowspan"))))
        elif tag in _VOID:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1].text += data


def _span(value: str | None) -> int:
    # The bounds are those that browsers keep.
    return min(max(int(value), 1), 1000) if value and value.isdecimal() else 1


def _spread(rows: list[list[_Cell]]) -> list[list[str]]:
    """A grid of texts in which every cell stands wherever it reaches."""
    reaching: dict[int, tuple[int, str]] = {}
    grid: list[list[str]] = []
    num_cells = 0
    for row in rows:
        line: dict[int, str] = {column: text for column, (_, text) in reaching.items()}
        following = {column: (left - 1, text) for column, (left, text) in reaching.items() if left > 1}
        column = 0
        for cell in row:
            while column in line:
                column += 1
            text = " ".join(cell.text.split())
            for place in range(column, column + cell.columns):
                line[place] = text if cell.heading or place == column else ""
                if cell.rows > 1:
                    following[place] = (cell.rows - 1, line[place])
            column += cell.columns
        reaching = following
        width = max(line, default=-1) + 1
        num_cells += width
        if num_cells > _MAX_CELLS:
            raise BadRow("too_long", f"the table has more than {_MAX_CELLS:,} cells")
        grid.append([line.get(place, "") for place in range(width)])
    return grid
