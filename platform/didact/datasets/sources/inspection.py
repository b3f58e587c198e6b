"""A file -> how its rows stand in it and what they mean: container, encoding, columns and form, decided once."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import get_args

from didact.datasets.forms.field_mapping import FieldMapping, map_rows
from didact.datasets.forms.hints import nearest_forms, rows_inside
from didact.datasets.forms.questions import is_csl
from didact.datasets.forms.table_files import TABLE_FILES, tables_place
from didact.datasets.forms.table_of_forms import COLUMN_FORMS, fits, form_of, recognise
from didact.datasets.places import in_memory
from didact.datasets.places.archives import COMPRESSIONS, damage_of, data_suffix, open_bytes
from didact.datasets.places.file_kinds import HEAD_BYTES, beginning, container_of, refuse_other_kinds
from didact.datasets.places.locate import LocatedFile
from didact.datasets.places.remote_stream import RemoteFile, SourceFile
from didact.datasets.readers import columnar, json_files
from didact.datasets.readers.columnar import Delimited
from didact.datasets.readers.reading import WHOLE, Layout, read
from didact.datasets.rows.decoding import decode_columns, decode_json
from didact.datasets.rows.options import Container, Delimiter, RowOptions
from didact.datasets.rows.raw_row import BOM, BadRow, of_element
from didact.errors import DataError
from didact.spec.data import Form, Format

_BY_SUFFIX: dict[str, Container] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".csv": "delimited",
    ".tsv": "delimited",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_TEXT_SUFFIXES = (".txt", ".md", ".text")
_FIRST_ROWS = 20
_ROWS_TO_RECOGNISE = 1000
_JOINED = (
    "several objects belong into one array, or on one line each with a line feed after it, as `jq -c .` writes them"
)
# A line that opens an object, and a next one that goes on in it: one object over several lines.
_OBJECT_GOES_ON = re.compile(rb'\{[^\n]*\n\s*["}\]]')


def inspect(
    source: str,
    file: LocatedFile,
    options: RowOptions,
    format: Format | None = "auto",
    mapping: FieldMapping | None = None,
) -> Layout:
    """Look at a file, once.

    Args:
        source: the source's name, for errors.
        file: the file.
        options: of the source.
        format: form of the rows; `auto` recognises it; None where only the names of fields matter.
        mapping: step before the form is read.

    Raises:
        DataError: the form is not known, options contradict each other or the file, or the file is damaged.
    """
    with damage_of(file.url or str(file.path)):
        return _inspected(source, file, options, format, mapping)


def _inspected(
    source: str, file: LocatedFile, options: RowOptions, format: Format | None, mapping: FieldMapping | None
) -> Layout:
    if options.columns and options.header:
        raise DataError("options.columns names columns that options.header says are named in the file; remove one")
    form = None if format == "auto" else format
    named = file.url or str(file.path)
    head = beginning(file.path, named)
    text = _decoded(file.path, head, options.encoding)
    container = options.container or _container_of(file.path, text, options, form)
    _check_container(file.path, container, options)
    is_page = form == "text" or options.container == "text"
    refuse_other_kinds(file.path, named, head, container, options.encoding, may_be_page=is_page)
    if container == "lines" and options.container is None and _is_array(text):
        raise DataError(
            f"{named} begins with '[' as a JSON array does, and JSON lines hold one object a line; if it is an array, "
            "let its name end in .json or set options.container: array"
        )
    layout = Layout(file.path, named, container, form, options.encoding, end_mark=options.end_mark)
    if container == "delimited":
        layout = _with_columns(layout, options, text, find_form=format == "auto" and mapping is None)
    if options.each is not None and _is_one_object(layout):
        layout = replace(layout, container="object", each=options.each)
    if format == "auto" and layout.form is None:
        layout = replace(layout, form=_form_of(source, layout, rows_mapping(layout, options, mapping)))
    if layout.form in TABLE_FILES:
        layout = replace(layout, tables=tables_place(layout.form, file.path, options.tables))
    return layout


def _is_array(head: bytes) -> bool:
    """Whether a file begins as an array does, and not with a line that is a list of its own."""
    first, _, rest = head.strip().partition(b"\n")
    return first.startswith(b"[") and not (first.rstrip().endswith(b"]") and rest)


def rows_mapping(layout: Layout, options: RowOptions, mapping: FieldMapping | None) -> FieldMapping | None:
    """The step before the form is read: what the card says, and `options.each` where it is a list in each row.

    Args:
        layout: of the file.
        options: of the source.
        mapping: of the card.
    """
    if options.each is None:
        return mapping
    each = options.each if layout.each is None else None
    return (mapping or FieldMapping()).model_copy(update={"each": each}) or None


def _is_one_object(layout: Layout) -> bool:
    """Whether a file is one JSON object and nothing else."""
    if isinstance(layout.path, RemoteFile) or layout.container not in ("lines", "object", "keyed"):
        return False
    if layout.container != "lines":
        return True
    with open_bytes(layout.path, layout.encoding) as source:
        first = piece = source.stream.readline(HEAD_BYTES).removeprefix(BOM).lstrip()
        while piece and not piece.endswith(b"\n"):  # a line may be as long as the file
            piece = source.stream.readline(HEAD_BYTES)
        rest = source.stream.readline(HEAD_BYTES)
    return data_suffix(layout.path) == ".json" and first.startswith(b"{") and not rest.strip()


def _decoded(path: SourceFile, head: bytes, encoding: str | None) -> bytes:
    """The beginning of a file as UTF-8, without byte order mark."""
    if encoding is not None:
        with open_bytes(path, encoding) as source:
            head = source.stream.read(HEAD_BYTES)
    return head.removeprefix(BOM)


def _container_of(path: SourceFile, head: bytes, options: RowOptions, form: Form | None) -> Container:
    """Told by name and beginning; plain text begins with anything."""
    head = head.lstrip()
    suffix = data_suffix(path)
    if form == "text" and suffix in _TEXT_SUFFIXES:
        return "text"
    told = _BY_SUFFIX.get(suffix) or container_of(head)
    if told is not None:
        return told
    if head.startswith(b"["):
        return "array" if not head.startswith(b"[|") else "text"
    if not head.startswith(b"{"):
        return "text" if suffix == ".txt" and head else "lines"
    goes_on = _OBJECT_GOES_ON.match(head) is not None
    if not goes_on and b"\n" in head.rstrip():
        return "lines"
    if _is_keyed(path, options):
        return "keyed"
    return "object" if goes_on else "lines"


def as_found(path: SourceFile, options: RowOptions) -> RowOptions:
    """Options whose container is only what a card expects, with that of the file where it is plainly another one.

    Args:
        path: the file.
        options: with a container.
    """
    expected = options.container
    if isinstance(path, RemoteFile) or expected not in ("lines", "array", "keyed", "object"):
        return options
    head = _decoded(path, beginning(path, str(path)), options.encoding).lstrip()
    found: Container = expected
    first, _, rest = head.partition(b"\n")
    if head.startswith(b"["):
        found = "array"
    elif rest.lstrip().startswith(b"{") and _is_object(first):
        found = "lines"
    elif head.startswith(b"{") and expected in ("lines", "array"):
        found = _container_of(path, head, options, None)
    return options.model_copy(update={"container": found})


def _is_object(line: bytes) -> bool:
    try:
        decode_json(line.strip())
    except BadRow:
        return False
    return True


def _is_keyed(path: SourceFile, options: RowOptions) -> bool:
    """Whether an object's members are rows: objects, or lists that begin with a list, under keys of no known form."""
    if isinstance(path, RemoteFile):
        raise _not_streamed(path, "keyed or object")
    found = json_files.members(path, _FIRST_ROWS, options.encoding)
    opens = [b"".join(head.split())[:2] for _, head in found]
    like_rows = all(head[:1] == b"{" for head in opens) or all(head == b"[[" for head in opens)
    return bool(found) and like_rows and recognise(key for key, _ in found) is None


def _check_container(path: SourceFile, container: Container, options: RowOptions) -> None:
    if isinstance(path, RemoteFile) and container in WHOLE:
        raise _not_streamed(path, container)
    if container in ("parquet", "arrow") and (options.encoding or path.suffix.lower() in COMPRESSIONS):
        raise DataError(
            f"{path}: {container} files have their own encoding and compression; unpack the file and remove "
            "options.encoding"
        )


def _not_streamed(path: RemoteFile, container: str) -> DataError:
    return DataError(
        f"{path}: a file whose container is {container} is read as a whole; set stream: false, or "
        "bring it to JSON lines"
    )


def _with_columns(layout: Layout, options: RowOptions, head: bytes, *, find_form: bool) -> Layout:
    """How columns are written and whether they have names; where they have none, also what they mean.

    Args:
        layout: delimited text.
        options: of the source.
        head: its first bytes, decoded.
        find_form: whether the form is still to be found, in columns as they stand in the file.
    """
    tabs = data_suffix(layout.path) == ".tsv"
    quotes = not tabs if options.quotes is None else options.quotes
    layout = replace(layout, delimited=Delimited(options.delimiter or ("\t" if tabs else ","), quotes, options.columns))
    if layout.form in COLUMN_FORMS:
        return replace(layout, header=False)
    if options.delimiter is None and options.header is not False and not options.columns:
        _check_delimiter(layout, head)
    told = options.header is not None or bool(options.columns)
    header = bool(options.header or options.columns) if told else True
    if not find_form or (header and (told or not tabs)):
        return replace(layout, header=header)
    if not told:
        first = columnar.first_row(head, layout.delimited)
        header = bool(first) and not is_csl(first) and recognise(first) is not None
    return replace(layout, header=header, form=None if header else _column_form(head))


def _check_delimiter(layout: Layout, head: bytes) -> None:
    """Refuse a header that is one column, or none, where another mark cuts it into several."""
    own = layout.delimited
    if len(columnar.first_row(head, own)) > 1:
        return
    cut = {mark: len(columnar.first_row(head, replace(own, mark=mark, quotes=True))) for mark in get_args(Delimiter)}
    mark = max(cut, key=lambda mark: cut[mark])
    if cut[mark] > 1 and mark != own.mark:
        line = head.split(b"\n", 1)[0].strip()[:200].decode("utf-8", errors="replace")
        raise DataError(
            f"{layout.file}: cut at {own.mark!r}, its first row is one column: {line}; set options.delimiter: "
            f"{json.dumps(mark)}"
        )


def _column_form(head: bytes) -> Form:
    for line in head.split(b"\n")[:_FIRST_ROWS]:
        try:
            if is_csl(decode_columns(line.rstrip(b"\r"))):
                return "csl"
        except BadRow:
            continue
    return "cot_tsv"


def _form_of(source: str, layout: Layout, mapping: FieldMapping | None) -> Form:
    rows, found, keys = read(layout), "", list[str]()
    for raw in islice(map_rows(mapping, rows) if mapping else rows, _ROWS_TO_RECOGNISE):
        try:
            if raw.fault is not None:
                raise raw.fault
            record = decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content
        except BadRow as bad:
            if bad.reason == "too_long" and (inside := _long_list(layout)) is not None:
                raise _rows_are_inside(source, layout, inside) from None
            joined = f"; {_JOINED}" if bad.detail.startswith("Extra data") else ""
            found = (
                found or f"line {raw.line}{of_element(raw.element)} is no record: {bad.reason} ({bad.detail}){joined}"
            )
            continue
        form, inside = form_of(record), rows_inside(record)
        if inside is not None and (form is None or not fits(form, record)):
            raise _rows_are_inside(source, layout, inside)
        if form is not None:
            return form
        keys = keys or list(record)
        found = found or f"found the keys {', '.join(repr(key) for key in keys[:20]) or '(none)'}"
    if not found:
        raise DataError(f"source {source!r}: {layout.file} holds no rows; change its path in data.sources")
    raise unknown_form(source, layout.file, found, keys)


def _long_list(layout: Layout) -> str | None:
    """The list of objects in a file that is one object longer than any row may be."""
    if not isinstance(layout.path, Path) or layout.container not in ("lines", "object"):
        return None
    found = json_files.members(layout.path, _FIRST_ROWS, layout.encoding)
    return next((name for name, head in found if b"".join(head.split())[:2] == b"[{"), None)


def _rows_are_inside(source: str, layout: Layout, inside: str) -> DataError:
    return DataError(
        f"source {source!r}: {layout.file} holds its rows in the list {inside!r}; set options.each: {inside}, or for a "
        f"card: didact data add PLACE --name NAME --option each={inside}"
    )


def unknown_form(source: str, where: str, found: str, keys: Sequence[str] = ()) -> DataError:
    """What to do about data whose form is not recognised.

    Args:
        source: the source's name.
        where: the file or path.
        found: what it holds.
        keys: names of its fields.
    """
    way_out = (
        "Give the fields these names where the rows are made, as {'instruction': row['FIELD'], 'output': row['FIELD']}"
        if where.startswith(in_memory.PREFIX)
        else "Change the source's path, say its format in data.sources, or say which fields hold what: didact data add "
        "PLACE --name NAME --field instruction=FIELD --field output=FIELD"
    )
    return DataError(
        f"source {source!r}: {where} is in no known form: {found[:500]}. The nearest forms are {nearest_forms(keys)}; "
        f"docs/forms.md lists all. {way_out}"
    )
