"""A file of a source -> its raw rows: which container it is, and how that is read."""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

from didact.datasets.forms.questions import is_csl
from didact.datasets.forms.table_files import TABLE_FILES, join_tables, table_file_list, tables_place
from didact.datasets.forms.table_of_forms import COLUMN_FORMS, recognise
from didact.datasets.places.archives import COMPRESSIONS, data_suffix, open_bytes
from didact.datasets.places.remote import is_remote, land
from didact.datasets.places.remote_stream import RemoteFile, SourceFile, describe
from didact.datasets.readers import columnar, json_files, text_files
from didact.datasets.readers.columnar import Delimited
from didact.datasets.rows.decoding import decode_columns
from didact.datasets.rows.options import Container, RowOptions
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.errors import DataError
from didact.spec.data import Form

_BY_SUFFIX: dict[str, Container] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".csv": "delimited",
    ".tsv": "delimited",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_WHOLE: tuple[Container, ...] = ("array", "keyed", "object")
"""Read from a map of the whole file."""
_TEXT_SUFFIXES = (".txt", ".md", ".text")
_HEAD_BYTES = 1 << 16
_FIRST_ROWS = 20
# A line that opens an object, and a next one that goes on in it: one object over several lines.
_OBJECT_GOES_ON = re.compile(rb'\{[^\n]*\n\s*["}\]]')


def file_rows(form: Form | None, path: SourceFile, options: RowOptions, *, named: bool = False) -> Iterator[RawRow]:
    """The raw rows of one file.

    Args:
        form: how they are written; None while that is being found out, which leaves tables in other files aside.
        path: the file.
        options: of the source.
        named: somebody expects the columns to have names, so a `.tsv` file has a header.

    Raises:
        DataError: an encoding that does not exist, or one that cannot be combined with the container.
    """
    if options.columns and options.header:
        raise DataError("options.columns names columns that options.header says are named in the file; remove one")
    container = container_of(path, options, form)
    if isinstance(path, RemoteFile) and container in _WHOLE:
        raise _not_streamed(path, container)
    if container in ("parquet", "arrow") and (options.encoding or path.suffix.lower() in COMPRESSIONS):
        raise DataError(
            f"{path}: {container} files have their own encoding and compression; unpack the file and remove "
            "options.encoding"
        )
    if container == "delimited" and not _has_names(form, path, options, named):
        rows = json_files.read_lines(path, blank=b" \r\n", encoding=options.encoding)
    else:
        rows = _READERS[container](path, options)
    return join_tables(form, path, options.tables, rows) if form in TABLE_FILES else rows


def column_form(path: SourceFile, options: RowOptions) -> Form | None:
    """The form of a file of columns without names; None where columns have names or the file is of another kind."""
    if container_of(path, options) != "delimited" or _has_names(None, path, options, named=False):
        return None
    for raw in islice(json_files.read_lines(path, blank=b" \r\n", encoding=options.encoding), _FIRST_ROWS):
        try:
            if raw.fault is None and is_csl(decode_columns(cast(bytes, raw.content))):
                return "csl"
        except BadRow:
            continue
    return "cot_tsv"


def side_files(form: Form, path: SourceFile, options: RowOptions) -> list[Path]:
    """Other files that decide the rows of this one."""
    return table_file_list(tables_place(form, path, options.tables)) if form in TABLE_FILES else []


def parallel_files(source: str, path: str, options: RowOptions) -> dict[str, Path]:
    """Field -> file, for a folder of files that run in parallel.

    Raises:
        DataError: one of them is not there.
    """
    if is_remote(path):
        return {field: land(describe(f"{path.rstrip('/')}/{name}")) for field, name in options.parallel.items()}
    folder = Path(path).expanduser()
    files = {field: folder / name for field, name in options.parallel.items()}
    for field, file in files.items():
        if not file.is_file():
            raise DataError(f"source {source!r}: options.parallel.{field}: there is no file {file}")
    return files


def container_of(path: SourceFile, options: RowOptions, form: Form | None = None) -> Container:
    """How rows stand in a file: as its options say, or by its name and beginning; plain text begins with anything."""
    if options.container is not None:
        return options.container
    if form == "text" and data_suffix(path) in _TEXT_SUFFIXES:
        return "text"
    by_name = _BY_SUFFIX.get(data_suffix(path))
    if by_name is not None:
        return by_name
    with open_bytes(path, options.encoding) as source:
        head = source.stream.read(_HEAD_BYTES).removeprefix(json_files.BOM).lstrip()
    if head.startswith(b"["):
        return "array" if not head.startswith(b"[|") else "text"
    if not head.startswith(b"{"):
        return "text" if data_suffix(path) == ".txt" and head else "lines"
    if _OBJECT_GOES_ON.match(head) or (b"\n" not in head.rstrip() and _is_keyed(path, options)):
        return "keyed" if _is_keyed(path, options) else "object"
    return "lines"


def _is_keyed(path: SourceFile, options: RowOptions) -> bool:
    """Whether an object's members are rows: objects, or lists that begin with a list, under keys of no known form."""
    if isinstance(path, RemoteFile):
        raise _not_streamed(path, "keyed or object")
    found = json_files.members(path, _FIRST_ROWS, options.encoding)
    opens = [b"".join(head.split())[:2] for _, head in found]
    like_rows = all(head[:1] == b"{" for head in opens) or all(head == b"[[" for head in opens)
    return bool(found) and like_rows and recognise(key for key, _ in found) is None


def _not_streamed(path: RemoteFile, container: str) -> DataError:
    return DataError(
        f"{path}: a file whose container is {container} is read as a whole; set stream: false, or "
        "bring it to JSON lines"
    )


def _has_names(form: Form | None, path: SourceFile, options: RowOptions, named: bool) -> bool:
    if form in COLUMN_FORMS:
        return False
    if options.header is not None or options.columns:
        return bool(options.header or options.columns)
    if data_suffix(path) != ".tsv" or named or (form is not None and form not in COLUMN_FORMS):
        return True
    first = columnar.first_row(path, _how(path, options), options.encoding)
    return bool(first) and not is_csl(first) and recognise(first) is not None


def _how(path: SourceFile, options: RowOptions) -> Delimited:
    tabs = data_suffix(path) == ".tsv"
    mark = options.delimiter or ("\t" if tabs else ",")
    return Delimited(mark, not tabs if options.quotes is None else options.quotes, options.columns)


# A file on this machine, and for containers that are not read as a whole also one elsewhere.
_READERS: dict[Container, Callable[[Any, RowOptions], Iterator[RawRow]]] = {
    "lines": lambda path, options: json_files.read_lines(path, encoding=options.encoding),
    "array": lambda path, options: json_files.read_array(path, options.encoding),
    "keyed": lambda path, options: json_files.read_keyed(path, options.encoding),
    "object": lambda path, options: json_files.read_object(path, options.encoding),
    "delimited": lambda path, options: columnar.read_delimited(path, _how(path, options), options.encoding),
    "parquet": lambda path, _: columnar.read_parquet(path),
    "arrow": lambda path, _: columnar.read_arrow(path),
    "text": lambda path, options: text_files.read_separated(path, options.end_mark, options.encoding),
}
