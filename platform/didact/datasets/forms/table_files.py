"""Question files whose tables lie in files of their own: each question is given its table as the field `table`."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from didact.datasets.forms.table_headings import tree_table
from didact.datasets.places.archives import damage_of, open_bytes
from didact.datasets.places.remote_stream import RemoteFile, SourceFile
from didact.datasets.readers.json_files import read_lines
from didact.datasets.rows.decoding import check_object, decode_json, decode_text, parse_json
from didact.datasets.rows.fields import items, text
from didact.datasets.rows.raw_row import BOM, BadRow, RawRow

_MAX_TABLE_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class TableLayoutOnDisk:
    """Where a data set keeps its tables."""

    key: str
    """Field of a question that names its table."""
    places: Callable[[Path], list[Path]]
    """Folders or files where the tables of a question file may be, as published."""
    read: Callable[[bytes], dict[str, Any]]
    """A file of one table, or a line of a file of tables, as `header`, `rows` and perhaps `title`."""
    file_name: Callable[[str], str] = str
    """A table's name -> its file in the folder of tables."""


def _delimited_table(mark: str, escape: str | None) -> Callable[[bytes], dict[str, Any]]:
    def read(raw: bytes) -> dict[str, Any]:
        lines = io.StringIO(decode_text(raw), newline="")
        try:
            if escape is None:
                found = csv.reader(lines, delimiter=mark, quoting=csv.QUOTE_NONE)
            else:
                found = csv.reader(lines, delimiter=mark, escapechar=escape, doublequote=False)
            rows = [row for row in found if row]
        except csv.Error as error:
            raise BadRow("broken_csv", f"the table: {error}") from None
        if not rows:
            raise BadRow("missing_table", "the table's file is empty")
        return {"header": rows[0], "rows": rows[1:]}

    return read


def _fact_sheet(raw: bytes) -> dict[str, Any]:
    """InfoTabS: facts on one thing, each a key with its values."""
    sheet = check_object(parse_json(raw))
    rows = [[key, "; ".join(value.strip() for value in _values(sheet, key))] for key in sheet if key != "title"]
    title = ", ".join(_values(sheet, "title")) if "title" in sheet else ""
    return {"title": title, "header": ["Fact", "Value"], "rows": rows}


def _values(sheet: dict[str, Any], key: str) -> list[str]:
    found = items(sheet, key)
    if not all(isinstance(value, str) for value in found):
        raise BadRow("wrong_type", f"the table's {key!r} holds something else than texts")
    return found


def _headed_table(raw: bytes) -> dict[str, Any]:
    """AIT-QA: every column and every row has a path of headings."""
    record = decode_json(raw)
    heads = [" / ".join(_path(path)) for path in items(record, "column_header")]
    sides = [" / ".join(_path(path)) for path in items(record, "row_header")]
    rows = items(record, "data")
    if sides and len(sides) != len(rows):
        raise BadRow("wrong_columns", f"the table has {len(sides)} row headings and {len(rows)} rows")
    if not sides:
        return {"id": text(record, "id"), "header": heads, "rows": rows}
    headed = [[side, *_path(row)] for side, row in zip(sides, rows, strict=True)]
    return {"id": text(record, "id"), "header": ["", *heads], "rows": headed}


def _path(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise BadRow("wrong_type", "the table has a heading or a row that is no list of texts")
    return value


def _above(path: Path, *names: str) -> list[Path]:
    return [folder / name for folder in (path.parent, path.parent.parent) for name in names]


TABLE_FILES: dict[str, TableLayoutOnDisk] = {
    "wtq": TableLayoutOnDisk(
        "context",
        lambda path: _above(path, "csv"),
        _delimited_table(",", "\\"),
        lambda name: name.removeprefix("csv/"),
    ),
    "tabfact": TableLayoutOnDisk(
        "id", lambda path: _above(path, "data/all_csv", "all_csv"), _delimited_table("#", None)
    ),
    "infotabs": TableLayoutOnDisk(
        "table_id", lambda path: _above(path, "tables/json", "json"), _fact_sheet, lambda name: f"{name}.json"
    ),
    "aitqa": TableLayoutOnDisk(
        "table_id", lambda path: [path.with_name(path.name.replace("questions", "tables"))], _headed_table
    ),
    "hitab": TableLayoutOnDisk(
        "table_id",
        lambda path: _above(path, "tables/raw", "tables/tables/raw"),
        lambda raw: tree_table(decode_json(raw)),
        lambda name: f"{name}.json",
    ),
    "text_to_sql": TableLayoutOnDisk(
        "table_id", lambda path: [path.with_name(f"{path.stem}.tables{path.suffix}")], decode_json
    ),
}
"""Form -> where its tables are."""


def tables_place(form: str, path: SourceFile, given: str | None) -> Path | None:
    """The folder or file that holds the tables of a question file; None where it is not there.

    Args:
        form: how the questions are written.
        path: the question file.
        given: `options.tables`.
    """
    places = _possible_places(form, path, given)
    return next((place for place in places if place != path and place.exists()), None)


def _possible_places(form: str, path: SourceFile, given: str | None) -> list[Path]:
    if isinstance(path, RemoteFile):
        return [] if given is None else [Path(given).expanduser()]
    return TABLE_FILES[form].places(path) if given is None else [path.parent / Path(given).expanduser()]


def table_file_list(place: Path) -> list[Path]:
    """Every file that holds tables, in an order that does not depend on the machine."""
    return sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]


def join_tables(form: str, path: SourceFile, tables: Path | None, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    """Give each row its table. A row that has one keeps it; a row whose table is not to be had is refused.

    Args:
        form: how the questions are written.
        path: the question file.
        tables: as `tables_place` found it.
        rows: the questions.
    """
    layout = TABLE_FILES[form]
    find = _finder(layout, tables, form, path)
    for raw in rows:
        if raw.fault is not None:
            yield raw
            continue
        try:
            record = decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content
            joined = record if "table" in record else {**record, "table": find(text(record, layout.key))}
        except BadRow as bad:
            yield replace(raw, fault=bad)
        else:
            yield replace(raw, content=joined)


def _finder(
    layout: TableLayoutOnDisk, place: Path | None, form: str, path: SourceFile
) -> Callable[[str], dict[str, Any]]:
    if place is None:
        looked = ", ".join(str(each) for each in _possible_places(form, path, None)) or "place beside a streamed file"

        def nothing(name: str) -> dict[str, Any]:
            raise BadRow(
                "missing_table", f"table {name!r}: there is no {looked}; set options.tables of this {form} source"
            )

        return nothing
    if place.is_dir():
        return lru_cache(maxsize=256)(lambda name: _from_folder(layout, place, name))
    known = _from_lines(layout, place)

    def listed(name: str) -> dict[str, Any]:
        table = known.get(name) or BadRow("missing_table", f"{place} holds no table {name!r}")
        if isinstance(table, BadRow):
            raise BadRow(table.reason, table.detail)
        return table

    return listed


def _from_folder(layout: TableLayoutOnDisk, folder: Path, name: str) -> dict[str, Any]:
    file = folder / layout.file_name(name)
    # A name comes out of the data and must not lead anywhere else.
    if "\0" in name or not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        raise BadRow("missing_table", f"{folder} holds no table {name!r}")
    with damage_of(str(file)), open_bytes(file) as source:
        raw = source.stream.read(_MAX_TABLE_BYTES + 1)
    if len(raw) > _MAX_TABLE_BYTES:
        raise BadRow("too_long", f"table {name!r} has more than {_MAX_TABLE_BYTES:,} bytes")
    return layout.read(raw.removeprefix(BOM))


def _from_lines(layout: TableLayoutOnDisk, file: Path) -> dict[str, dict[str, Any] | BadRow]:
    known: dict[str, dict[str, Any] | BadRow] = {}
    for raw in _table_lines(file):
        try:
            if raw.fault is not None or not isinstance(raw.content, bytes):
                continue
            name = text(decode_json(raw.content), "id")
        except BadRow:
            continue  # a table without a name: whoever asks for it is told that there is none
        try:
            known[name] = layout.read(raw.content)
        except BadRow as bad:
            known[name] = BadRow("missing_table", f"table {name!r} in {file}:{raw.line}: {bad.reason} ({bad.detail})")
    return known


def _table_lines(file: Path) -> Iterator[RawRow]:
    with damage_of(str(file)):
        yield from read_lines(file)
