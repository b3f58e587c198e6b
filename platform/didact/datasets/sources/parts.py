"""What was found of a source -> its parts: ranges of lines, row groups, small files together, numbers of rows."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from didact.datasets.forms.field_mapping import FieldMapping
from didact.datasets.forms.table_files import TABLE_FILES
from didact.datasets.forms.table_of_forms import COLUMN_FORMS
from didact.datasets.places.archives import COMPRESSIONS
from didact.datasets.places.digests import PART_BYTES, Content, FileDigest
from didact.datasets.places.remote_stream import RemoteFile
from didact.datasets.readers import columnar
from didact.datasets.readers.json_files import Lines
from didact.datasets.readers.reading import Layout, Piece
from didact.datasets.rows.raw_row import RawRow
from didact.datasets.sources.conversion import Part, file_rows
from didact.spec.data import Form

PART_ROWS = 25_000
"""Rows of a generator or a hub data set that make one part."""
PART_FILES = 2_000
"""Most files that make one part."""


def file_parts(number: int, layout: Layout, contents: tuple[Content, ...], mapping: FieldMapping | None) -> list[Part]:
    """The parts of a file: ranges of bytes where rows are lines, row groups of Parquet, else the whole.

    Args:
        number: the file's place in the source's order.
        layout: the file, of a known form.
        contents: its own, whose blocks become the parts of a file of lines, and those of the tables beside it.
        mapping: of its fields.
    """
    path, form, digest = layout.path, layout.form, contents[0].digest
    assert form is not None
    if digest is None or not isinstance(path, Path):
        size = (path.size or 0) if isinstance(path, RemoteFile) else 0
        key, read = f"{number:05d}-{0:015d}", partial(file_rows, layout)
        return [Part(key, (layout.file,), form, (read,), mapping, size, contents)]
    pieces = _pieces(layout, path, digest)
    piece = f"-{digest.block_bytes}" if len(pieces) > 1 else ""
    size = digest.size // len(pieces)
    return [
        Part(
            f"{number:05d}-{start:015d}{piece}",
            (layout.file,),
            form,
            (partial(file_rows, layout, each),),
            mapping,
            size,
            contents,
        )
        for start, each in pieces
    ]


def _pieces(layout: Layout, path: Path, digest: FileDigest) -> list[tuple[int, Piece | None]]:
    """What of a file is read apart, each with where it begins; the whole of one that cannot be divided."""
    plain = layout.form not in TABLE_FILES and layout.encoding is None and path.suffix.lower() not in COMPRESSIONS
    pieces: list[tuple[int, Piece | None]] = []
    if plain and (layout.container == "lines" or (layout.container == "delimited" and layout.form in COLUMN_FORMS)):
        pieces = [(lines.start, lines) for lines in _line_ranges(digest)]
    elif plain and layout.container == "parquet":
        pieces = [(group.first_row, group) for group in columnar.parquet_groups(path, digest.block_bytes)]
    return pieces or [(0, None)]


def join_small(files: Sequence[Sequence[Part]], sizes: Sequence[int | None], part_bytes: int) -> list[Part]:
    """The parts of all files; small ones that follow each other, and are written alike, become one part.

    Every part costs some files of the cache and a task, which a file of one row is not worth.

    Args:
        files: the parts of each file, in order.
        sizes: bytes of each; None for a file read where it is.
        part_bytes: most bytes of files that become one part.
    """
    groups: list[list[Part]] = []
    room = 0
    for parts, size in zip(files, sizes, strict=True):
        alone = size is None or len(parts) > 1
        if size is not None and not alone and groups and size <= room and _may_join(groups[-1], parts[0]):
            groups[-1].append(parts[0])
            room -= size
        else:
            groups += [[part] for part in parts]
            room = 0 if alone or size is None else part_bytes - size
    return [_joined(group) for group in groups]


def _may_join(group: Sequence[Part], part: Part) -> bool:
    return len(group) < PART_FILES and (group[0].form, group[0].mapping) == (part.form, part.mapping)


def _joined(group: Sequence[Part]) -> Part:
    if len(group) == 1:
        return group[0]
    places, reads, contents = (
        tuple(chain.from_iterable(each)) for each in zip(*((p.places, p.reads, p.contents) for p in group), strict=True)
    )
    # A name that none of them has alone: what the cache holds of the first file is not what it holds of all.
    size = sum(part.size for part in group)
    return replace(
        group[0], key=f"{group[0].key}-{len(group)}", places=places, reads=reads, size=size, contents=contents
    )


def counted_parts(place: str, form: Form, read: "partial[Iterator[RawRow]]", num_rows: int) -> list[Part]:
    """The parts of a source whose rows are numbered.

    Args:
        place: the source's path.
        form: how its rows are written.
        read: takes the first row and the row to stop before.
        num_rows: rows of the source.
    """
    starts = range(0, max(1, num_rows), PART_ROWS)
    piece = f"-{PART_ROWS}" if len(starts) > 1 else ""
    reads = [partial(read, start, min(start + PART_ROWS, num_rows)) for start in starts]
    return [
        Part(f"{0:05d}-{start:015d}{piece}", (place,), form, (each,), size=PART_BYTES)
        for start, each in zip(starts, reads, strict=True)
    ]


def _line_ranges(digest: FileDigest) -> list[Lines]:
    starts = range(0, max(1, digest.size), digest.block_bytes)
    return [
        Lines(start, start + digest.block_bytes, lines) for start, lines in zip(starts, digest.newlines, strict=False)
    ]
