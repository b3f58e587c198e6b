"""A source of the recipe -> its raw rows, whatever it is: files, a card, a generator or the hub."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from didact.datasets import catalog, containers_text, generated, hub, reading
from didact.datasets.archives import data_suffix
from didact.datasets.decoding import decode_json
from didact.datasets.locate import LocatedFile, identity_of, locate
from didact.datasets.mapping import FieldMapping, map_rows
from didact.datasets.options import RowOptions, row_options
from didact.datasets.records import COLUMN_FORMS, KNOWN_FORMS, Form, recognise
from didact.datasets.remote_stream import SourceFile
from didact.datasets.rows import BadRow, RawRow
from didact.errors import DataError
from didact.files import sha256_file
from didact.spec import SourceSpec

_ROWS_TO_RECOGNISE = 1000
_AS_IT_IS = FieldMapping()


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source that is there and of a known form."""

    rows: Iterator[tuple[Form, RawRow]]
    """Raw rows, each with the form it is written in; files are opened as their turn comes."""
    identity: Any
    """Plain data that changes whenever the source's bytes do."""
    options: RowOptions = field(default_factory=RowOptions)
    """How its rows become text."""


def open_source(source: SourceSpec) -> OpenedSource:
    """Find a source and the form of its rows.

    Raises:
        DataError: nothing is there, or it cannot have the format asked for. Files are recognised as they are read, so
            iterating `rows` raises it for a file of unknown form.
    """
    if source.path.startswith(generated.PREFIX):
        return _open_generated(source)
    if source.path.startswith(hub.PREFIX):
        return _open_hub(source)
    card = catalog.card_of(source)
    if card is not None:
        return open_card(source, card)
    if source.format == "reasoning_gym":
        raise DataError(
            f"source {source.name!r}: format reasoning_gym needs a path such as {generated.PREFIX}chain_sum, "
            f"found {source.path!r}"
        )
    options = row_options(source)
    if options.parallel:
        return _open_parallel(source, options)
    return _open_files(source, locate(source.name, source.path, stream=source.stream), _AS_IT_IS)


def _open_files(source: SourceSpec, files: Sequence[LocatedFile], mapping: FieldMapping) -> OpenedSource:
    options = row_options(source)
    forms = [_form_of(source, file.path, options, mapping) for file in files]
    rows = _file_rows(zip(forms, files, strict=True), options, mapping)
    return OpenedSource(rows, _digests(zip(forms, files, strict=True), options), options)


def _open_parallel(source: SourceSpec, options: RowOptions) -> OpenedSource:
    if source.stream:
        raise DataError(f"source {source.name!r}: files that run in parallel are not streamed; set stream: false")
    files = reading.parallel_files(source.name, source.path, options)
    form = recognise(files) if source.format == "auto" else source.format
    if form is None:
        raise _unknown_form(source, source.path, f"options.parallel names {', '.join(files)}")
    identity = [[field, sha256_file(file)] for field, file in files.items()]
    rows = containers_text.read_parallel(files, options.encoding)
    return OpenedSource(((form, raw) for raw in rows), identity, options)


def _open_generated(source: SourceSpec) -> OpenedSource:
    _check_format(source, ("auto", "reasoning_gym"))
    task = source.path.removeprefix(generated.PREFIX)
    dataset = generated.open_generator(task, source.max_rows or generated.DEFAULT_ROWS, source.options)
    rows = generated.generated_rows(source.path, dataset)
    return OpenedSource((("reasoning_gym", raw) for raw in rows), [task, generated.generator_version()])


def open_card(source: SourceSpec, card: catalog.Card) -> OpenedSource:
    """Find the rows of a card, which need not be in the catalog yet.

    Raises:
        DataError: as `open_source`.
    """
    place = catalog.resolve_card(source, card)
    told = {"format": place.format, "options": place.options, "path": place.hub_path or source.path}
    source = source.model_copy(update=told)
    if place.hub_path is not None:
        opened = _open_hub(source, place.mapping)
    else:
        opened = _open_files(source, place.files, place.mapping)
    return OpenedSource(opened.rows, [place.written, opened.identity], opened.options)


def _open_hub(source: SourceSpec, mapping: FieldMapping = _AS_IT_IS) -> OpenedSource:
    if source.format in COLUMN_FORMS or source.format == "reasoning_gym":
        _check_format(source, ("auto", "a form with named fields"))
    options = row_options(source)
    opened = hub.stream_hub if source.stream else hub.open_hub
    dataset = opened(source.path, source.split, source.revision)
    columns = list(mapping.fields) or hub.hub_columns(dataset)
    form = recognise(columns) if source.format == "auto" else source.format
    if form is None:
        raise _unknown_form(source, source.path, f"found the columns {', '.join(columns)}")
    rows = hub.hub_rows(source.path, dataset)
    rows = map_rows(mapping, rows) if mapping else rows
    return OpenedSource(((form, raw) for raw in rows), hub.hub_identity(dataset), options)


def _file_rows(
    files: Iterable[tuple[Form, LocatedFile]], options: RowOptions, mapping: FieldMapping
) -> Iterator[tuple[Form, RawRow]]:
    for form, file in files:
        for raw in _raw_rows(form, file.path, options, mapping):
            yield form, raw


def _raw_rows(form: Form | None, path: SourceFile, options: RowOptions, mapping: FieldMapping) -> Iterator[RawRow]:
    rows = reading.file_rows(form, path, options, named=bool(mapping))
    return map_rows(mapping, rows) if mapping else rows


def _form_of(source: SourceSpec, path: SourceFile, options: RowOptions, mapping: FieldMapping) -> Form:
    if source.format != "auto":
        return source.format
    if not mapping and (form := reading.column_form(path, options)) is not None:
        return form
    found = ""
    for raw in islice(_raw_rows(None, path, options, mapping), _ROWS_TO_RECOGNISE):
        try:
            if raw.fault is not None:
                raise raw.fault
            keys = list(decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content)
        except BadRow as bad:
            found = found or f"line {raw.line} is no record: {bad.reason} ({bad.detail})"
            continue
        form = recognise(keys)
        if form is not None:
            return form
        found = found or f"found the keys {', '.join(repr(key) for key in keys[:20]) or '(none)'}"
    raise _unknown_form(source, str(path), found or "the file holds no rows")


def _digests(files: Iterable[tuple[Form, LocatedFile]], options: RowOptions) -> list[list[Any]]:
    return [
        [data_suffix(file.path), identity_of(file.path)]
        + [sha256_file(side) for side in reading.side_files(form, file.path, options)]
        for form, file in files
    ]


def _unknown_form(source: SourceSpec, where: str, found: str) -> DataError:
    return DataError(
        f"source {source.name!r}: {where} is in no known form: {found[:500]}. Known forms: {KNOWN_FORMS}, "
        "and cot_tsv for .tsv files. Change the source's path, or say its format in data.sources"
    )


def _check_format(source: SourceSpec, possible: tuple[str, ...]) -> None:
    if source.format not in possible:
        raise DataError(
            f"source {source.name!r}: {source.path} cannot have format {source.format}; "
            f"set it to {' or '.join(possible)}"
        )
