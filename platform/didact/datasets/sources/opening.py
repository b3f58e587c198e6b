"""A source of the recipe -> its parts, whatever it is: files, a card, a generator or the hub."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from didact.datasets import catalog
from didact.datasets.forms.field_mapping import FieldMapping
from didact.datasets.forms.table_files import table_file_list
from didact.datasets.forms.table_of_forms import COLUMN_FORMS, recognise
from didact.datasets.places import generated, hub
from didact.datasets.places.archives import data_suffix
from didact.datasets.places.digests import PART_BYTES, Content, unchanged
from didact.datasets.places.folders import few
from didact.datasets.places.locate import LocatedFile, locate
from didact.datasets.places.remote import is_remote, land
from didact.datasets.places.remote_stream import describe
from didact.datasets.readers import text_files
from didact.datasets.readers.reading import Layout
from didact.datasets.rows.options import RowOptions, row_options
from didact.datasets.rows.raw_row import RawRow
from didact.datasets.sources.conversion import Part
from didact.datasets.sources.inspection import as_found, inspect, rows_mapping, unknown_form
from didact.datasets.sources.parts import PART_ROWS, counted_parts, file_parts, join_small
from didact.errors import DataError
from didact.logs import get_logger
from didact.spec import SourceSpec
from didact.spec.data import Form

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source that is there and of a known form."""

    parts: tuple[Part, ...]
    """Its rows, in pieces that are read independently. Files follow each other in the order of their digests, so that
    neither their names nor where the data lies decides the order of rows."""
    identity: Any
    """Plain data that changes whenever the source's bytes do."""
    options: RowOptions = field(default_factory=RowOptions)
    """How its rows become text."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path or URL -> sha256 of every file that decides the rows; empty for sources that are not files."""
    check: Callable[[], object] | None = None
    """Refuses settings before the first row is made. Not asked where the rows are in the cache, so they were made."""

    @property
    def rows(self) -> Iterator[tuple[Form, RawRow]]:
        """Raw rows, each with the form it is written in; files are opened as their turn comes."""
        return ((part.form, raw) for part in self.parts for raw in part.rows())


def open_source(source: SourceSpec, part_bytes: int | None = None) -> OpenedSource:
    """Find a source, the form of its rows and the parts it is read in.

    Args:
        source: the source.
        part_bytes: size of the parts of a file that can be divided; None for what suits the file.

    Raises:
        DataError: nothing is there, it is of unknown form, or it cannot have the format asked for.
    """
    if source.path.startswith(generated.PREFIX):
        return _open_generated(source)
    if source.path.startswith(hub.PREFIX):
        return _open_hub(source, row_options(source), None)
    if source.path.startswith(catalog.PREFIX):
        return open_card(source, catalog.named_card(source), part_bytes)
    if source.format == "reasoning_gym":
        raise DataError(
            f"source {source.name!r}: format reasoning_gym needs a path such as {generated.PREFIX}chain_sum, "
            f"found {source.path!r}"
        )
    options = row_options(source)
    if options.parallel:
        return _open_parallel(source, options)
    return _open_files(source, locate(source.name, source.path, stream=source.stream), options, None, part_bytes)


def _open_files(
    source: SourceSpec,
    files: Sequence[LocatedFile],
    options: RowOptions,
    mapping: FieldMapping | None,
    part_bytes: int | None,
    container_of_card: bool = False,
) -> OpenedSource:
    _log.info("source %s reads %s", source.name, few(file.url or str(file.path) for file in files))
    found: list[tuple[list[object], Layout, tuple[Content, ...]]] = []
    digests: dict[str, str] = {}
    with ExitStack() as stack:
        for file in files:
            own = Content.of(file.path, file.url or str(file.path), part_bytes)
            stack.enter_context(unchanged([own]))  # what is seen of a file here must be what its digest says, too
            seen = as_found(file.path, options) if container_of_card else options
            layout = inspect(source.name, file, seen, source.format, mapping)
            tables = table_file_list(layout.tables) if layout.tables else []
            beside = [Content.of(table, str(table), part_bytes) for table in tables]
            if own.digest is not None:
                digests[own.file] = own.digest.sha256
                if not own.digest.size:
                    _log.warning("source %s: %s is empty", source.name, own.file)
            marks = [content.identity for content in (own, *beside)]
            found.append(([data_suffix(file.path), *marks], layout, (own, *beside)))
        found.sort(key=lambda entry: (str(entry[0][1:]), str(entry[0][0])))
        by_file = [
            file_parts(number, layout, contents, rows_mapping(layout, options, mapping))
            for number, (_, layout, contents) in enumerate(found)
        ]
    sizes = [own.digest.size if own.digest is not None else None for *_, (own, *_) in found]
    parts = join_small(by_file, sizes, part_bytes or PART_BYTES)
    return OpenedSource(tuple(parts), [entry[0] for entry in found], options, digests)


def _open_parallel(source: SourceSpec, options: RowOptions) -> OpenedSource:
    if source.stream:
        raise DataError(f"source {source.name!r}: files that run in parallel are not streamed; set stream: false")
    files = _parallel_files(source, options)
    form = recognise(files) if source.format == "auto" else source.format
    if form is None:
        raise unknown_form(source.name, source.path, f"options.parallel names {', '.join(files)}", list(files))
    places = {name: str(file) for name, file in files.items()}
    if is_remote(source.path):
        places = {name: f"{source.path.rstrip('/')}/{options.parallel[name]}" for name in files}
    _log.info("source %s reads %s", source.name, few(places.values()))
    first = next(iter(places.values()))
    contents = {name: Content.of(file, places[name]) for name, file in files.items()}
    read = partial(text_files.read_parallel, files, options.encoding, first)
    part = Part("00000", (first,), form, (read,), contents=tuple(contents.values()))
    digests = {content.file: str(content.identity) for content in contents.values()}
    return OpenedSource((part,), [[name, content.identity] for name, content in contents.items()], options, digests)


def _parallel_files(source: SourceSpec, options: RowOptions) -> dict[str, Path]:
    """Field -> file, for a folder of files that run in parallel."""
    if is_remote(source.path):
        folder = source.path.rstrip("/")
        return {name: land(describe(f"{folder}/{file}")) for name, file in options.parallel.items()}
    files = {name: Path(source.path).expanduser() / file for name, file in options.parallel.items()}
    for name, path in files.items():
        if not path.is_file():
            raise DataError(f"source {source.name!r}: options.parallel.{name}: there is no file {path}")
    return files


def _open_generated(source: SourceSpec) -> OpenedSource:
    _check_format(source, ("auto", "reasoning_gym"))
    task = source.path.removeprefix(generated.PREFIX)
    size = source.max_rows or generated.DEFAULT_ROWS
    read = partial(generated.generated_rows, task, size, source.options)
    parts = counted_parts(source.path, "reasoning_gym", read, size)
    check = partial(generated.open_generator, task, size, source.options)
    return OpenedSource(tuple(parts), [task, size, generated.generator_version()], check=check)


def open_card(source: SourceSpec, card: catalog.Card, part_bytes: int | None = None) -> OpenedSource:
    """Find the rows of a card, which need not be in the catalog yet.

    Raises:
        DataError: as `open_source`.
    """
    place = catalog.resolve_card(source, card)
    source = source.model_copy(update={"format": place.format, "path": place.hub_path or source.path})
    if place.hub_path is not None:
        opened = _open_hub(source, place.options, place.mapping)
    else:
        opened = _open_files(source, place.files, place.options, place.mapping, part_bytes, place.container_of_card)
    return replace(opened, identity=[place.written, opened.identity])


def _open_hub(source: SourceSpec, options: RowOptions, mapping: FieldMapping | None) -> OpenedSource:
    if source.format in COLUMN_FORMS or source.format == "reasoning_gym":
        _check_format(source, ("auto", "a form with named fields"))
    opened = hub.stream_hub if source.stream else hub.open_hub
    dataset = opened(source.path, source.split, source.revision)
    if options.each is not None:
        if source.format == "auto":
            raise DataError(f"source {source.name!r}: options.each of a Hugging Face dataset needs a format as well")
        mapping = (mapping or FieldMapping()).model_copy(update={"each": options.each})
    columns = list(mapping.fields if mapping else ()) or hub.hub_columns(dataset)
    form = recognise(columns) if source.format == "auto" else source.format
    if form is None:
        raise unknown_form(source.name, source.path, f"found the columns {', '.join(columns)}", columns)
    if isinstance(dataset, hub.HubStream):
        identity: Any = list(dataset.identity)
        read_all = partial(hub.streamed_rows, source.path, source.split, identity[-1])
        parts = [Part("00000", (source.path,), form, (read_all,))]
    else:
        read = partial(hub.hub_rows, source.path, source.split, source.revision)
        parts = counted_parts(source.path, form, read, len(dataset))
        identity, digests = hub.hub_digests(dataset, PART_ROWS)
        same = [partial(hub.as_before, part.reads[0], digest) for part, digest in zip(parts, digests, strict=True)]
        parts = [replace(part, reads=(each,)) for part, each in zip(parts, same, strict=True)]
    return OpenedSource(tuple(replace(part, mapping=mapping) for part in parts), identity, options)


def _check_format(source: SourceSpec, possible: tuple[str, ...]) -> None:
    if source.format not in possible:
        raise DataError(
            f"source {source.name!r}: {source.path} cannot have format {source.format}; "
            f"set it to {' or '.join(possible)}"
        )
