"""A file as it was recognised -> its raw rows. A `Layout` says all there is to know of a file; nothing is guessed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from didact.datasets.places.archives import damage_of
from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.readers import columnar, json_files, text_files
from didact.datasets.readers.columnar import Delimited, RowGroups
from didact.datasets.readers.json_files import Lines
from didact.datasets.rows.options import END_MARK, Container
from didact.datasets.rows.raw_row import RawRow
from didact.spec.data import Form

Piece = Lines | RowGroups
"""The part of a file that is read apart from the rest."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows stand in one file, decided once."""

    path: SourceFile
    """Where its bytes are read."""
    file: str
    """The file as the user names it."""
    container: Container
    form: Form | None = None
    """What its rows mean; None where nobody asks."""
    encoding: str | None = None
    """Of its text; None for UTF-8."""
    delimited: Delimited = field(default_factory=Delimited)
    """How delimited text is written."""
    header: bool = True
    """Whether columns of delimited text have names. If they have none, a line is a row and is not taken apart."""
    end_mark: str = END_MARK
    """What ends a text in a container `text`."""
    tables: Path | None = None
    """Folder or file with the tables that its rows ask about."""
    each: str | None = None
    """The list inside the file's one object whose elements are its rows; None where the file itself holds rows."""


WHOLE: dict[Container, Callable[[Path, str | None], Iterator[RawRow]]] = {
    "array": json_files.read_array,
    "keyed": json_files.read_keyed,
    "object": json_files.read_object,
}
"""Containers that are read from a map of the whole file."""


def read(layout: Layout, piece: Piece | None = None) -> Iterator[RawRow]:
    """The raw rows of a file.

    Args:
        layout: the file.
        piece: lines of a plain file in UTF-8, or row groups of Parquet; None for the whole file.

    Raises:
        DataError: the file is damaged or incomplete.
    """
    copied = str(layout.path) != layout.file
    with damage_of(layout.file):
        for raw in _rows(layout, piece):
            # What is read is not always what the user named, as with a copy.
            yield replace(raw, file=layout.file) if copied else raw


def _rows(layout: Layout, piece: Piece | None) -> Iterator[RawRow]:
    path, encoding = layout.path, layout.encoding
    lines = piece if isinstance(piece, Lines) else None
    if layout.container in WHOLE:
        assert isinstance(path, Path)
        if layout.each is not None:
            return json_files.read_inside(path, layout.each, encoding)
        return WHOLE[layout.container](path, encoding)
    if layout.container == "delimited" and layout.header:
        return columnar.read_delimited(path, layout.delimited, encoding)
    if layout.container == "delimited":
        return json_files.read_lines(path, columnar.BLANK, encoding, lines, layout.delimited.mark.encode())
    if layout.container == "parquet":
        return columnar.read_parquet(path, piece if isinstance(piece, RowGroups) else None)
    if layout.container == "arrow":
        return columnar.read_arrow(path)
    if layout.container == "text":
        return text_files.read_separated(path, layout.end_mark, encoding)
    return json_files.read_lines(path, encoding=encoding, lines=lines)
