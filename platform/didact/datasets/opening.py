"""A source of the recipe -> its raw rows, whatever it is: files, a generator or the hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from didact.datasets import containers, generated, hub
from didact.datasets.decoding import decode_json
from didact.datasets.locate import LocatedFile, locate
from didact.datasets.records import KNOWN_FORMS, Form, recognise
from didact.datasets.rows import BadRow, RawRow
from didact.errors import DataError
from didact.files import sha256_file
from didact.spec import SourceSpec

_ROWS_TO_RECOGNISE = 1000


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source that is there and of a known form."""

    rows: Iterator[tuple[Form, RawRow]]
    """Raw rows, each with the form it is written in; files are opened as their turn comes."""
    identity: Any
    """Plain data that changes whenever the source's bytes do."""


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
    if source.format == "reasoning_gym":
        raise DataError(
            f"source {source.name!r}: format reasoning_gym needs a path such as {generated.PREFIX}chain_sum, "
            f"found {source.path!r}"
        )
    files = locate(source.name, source.path)
    identity = [[file.path.suffix.lower(), sha256_file(file.path)] for file in files]
    return OpenedSource(_file_rows(source, files), identity)


def _open_generated(source: SourceSpec) -> OpenedSource:
    _check_format(source, ("auto", "reasoning_gym"))
    task = source.path.removeprefix(generated.PREFIX)
    dataset = generated.open_generator(task, source.max_rows or generated.DEFAULT_ROWS, source.options)
    rows = generated.generated_rows(source.path, dataset)
    return OpenedSource((("reasoning_gym", raw) for raw in rows), [task, generated.generator_version()])


def _open_hub(source: SourceSpec) -> OpenedSource:
    _check_format(source, ("auto", "alpaca", "sharegpt", "messages"))
    dataset = hub.open_hub(source.path, source.split, source.revision)
    form = recognise(dataset.column_names) if source.format == "auto" else source.format
    if form is None:
        raise _unknown_form(source, source.path, f"found the columns {', '.join(dataset.column_names)}")
    return OpenedSource(((form, raw) for raw in hub.hub_rows(source.path, dataset)), hub.hub_digest(dataset))


def _file_rows(source: SourceSpec, files: list[LocatedFile]) -> Iterator[tuple[Form, RawRow]]:
    for file in files:
        form = _form_of(source, file.path)
        for raw in _raw_rows(form, file.path):
            yield form, raw


def _raw_rows(form: Form | None, path: Path) -> Iterator[RawRow]:
    if form == "cot_tsv":
        return containers.read_lines(path, blank=b" \r\n")
    return containers.read_array(path) if containers.is_json_array(path) else containers.read_lines(path)


def _form_of(source: SourceSpec, path: Path) -> Form:
    if source.format != "auto":
        return source.format
    if path.suffix.lower() == ".tsv":
        return "cot_tsv"
    found = ""
    for raw in islice(_raw_rows(None, path), _ROWS_TO_RECOGNISE):
        try:
            if raw.fault is not None:
                raise raw.fault
            keys = list(decode_json(cast(bytes, raw.content)))
        except BadRow as bad:
            found = found or f"line {raw.line} is no record: {bad.reason} ({bad.detail})"
            continue
        form = recognise(keys)
        if form is not None:
            return form
        found = found or f"found the keys {', '.join(repr(key) for key in keys[:20]) or '(none)'}"
    raise _unknown_form(source, str(path), found or "the file holds no rows")


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
