"""Evaluation sets that a recipe names -> their questions."""

from collections.abc import Iterator
from typing import Any

from didact.datasets import catalog
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.table_of_forms import to_conversation
from didact.datasets.places import generated, hub
from didact.datasets.places.locate import locate
from didact.datasets.quality.types import EvalText
from didact.datasets.readers.reading import read
from didact.datasets.rows.decoding import decode_json
from didact.datasets.rows.options import row_options
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.datasets.sources.inspection import inspect
from didact.datasets.sources.opening import open_source
from didact.errors import DataError
from didact.logs import get_logger
from didact.spec import ContaminationSpec, EvaluationSetSpec, SourceSpec

_log = get_logger(__name__)


def against_texts(contamination: ContaminationSpec) -> Iterator[EvalText]:
    """The questions of every set in `data.contamination.against`; an item is named by its place, as `file:line`.

    Raises:
        DataError: a set cannot be read, or has no questions.
    """
    for each in contamination.against:
        if each.max_rows is not None and not each.path.startswith(generated.PREFIX):
            _log.warning("evaluation set %s: max_rows only has an effect for %sTASK", each.name, generated.PREFIX)
        count = 0
        for item, text in _field_texts(each) if each.question is not None else _user_texts(each):
            count += 1
            yield EvalText(each.name, item, text)
        if not count:
            raise DataError(
                f"evaluation set {each.name!r}: {each.path} has no questions"
                + (f" in the field {each.question!r}; change its `question`" if each.question is not None else "")
            )


def _source(each: EvaluationSetSpec) -> SourceSpec:
    shared = {
        name: getattr(each, name) for name in ("name", "path", "format", "split", "revision", "options", "max_rows")
    }
    return SourceSpec(**shared)


def _user_texts(each: EvaluationSetSpec) -> Iterator[tuple[str, str]]:
    opened = open_source(_source(each))
    settings = RowSettings(opened.options, any_form=each.format == "auto")
    for index, (form, raw) in enumerate(opened.rows):
        try:
            conversation = to_conversation(form, raw, index, settings)
        except BadRow:
            continue
        yield raw.place, "\n".join(m.content for m in conversation.messages if m.role == "user")


def _field_texts(each: EvaluationSetSpec) -> Iterator[tuple[str, str]]:
    path = str(each.question).split(".")
    for raw in _raw_rows(each):
        try:
            if raw.fault is not None:
                continue
            record = decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content
        except BadRow:
            continue
        texts = list(_at(record, path))
        for number, text in enumerate(texts):
            yield raw.place + (f"[{number}]" if len(texts) > 1 else ""), text


def _raw_rows(each: EvaluationSetSpec) -> Iterator[RawRow]:
    """Rows of files or of a hub data set whose form nobody needs to know."""
    if each.path.startswith(hub.PREFIX):
        num_rows = len(hub.open_hub(each.path, each.split, each.revision))
        yield from hub.hub_rows(each.path, each.split, each.revision, 0, num_rows)
        return
    if each.path.startswith((generated.PREFIX, catalog.PREFIX)):
        raise DataError(
            f"evaluation set {each.name!r}: {each.path} is in a known form; remove `question`, which names a field of "
            "files and hub data sets"
        )
    options = row_options(_source(each))
    for file in locate(each.name, each.path):
        yield from read(inspect(each.name, file, options, format=None))


def _at(value: Any, path: list[str]) -> Iterator[str]:
    """The texts at a path of keys; lists on the way are gone through."""
    if isinstance(value, list):
        for element in value:
            yield from _at(element, path)
    elif path and isinstance(value, dict):
        yield from _at(value.get(path[0]), path[1:])
    elif not path and isinstance(value, str) and value.strip():
        yield value
