"""Evaluation sets that a recipe names -> their questions."""

from collections.abc import Iterator
from typing import Any

from didact.datasets.decoding import decode_json
from didact.datasets.drafts import RowSettings
from didact.datasets.locate import locate
from didact.datasets.opening import open_source
from didact.datasets.options import row_options
from didact.datasets.quality.types import EvalText
from didact.datasets.reading import file_rows
from didact.datasets.records import to_conversation
from didact.datasets.rows import BadRow
from didact.errors import DataError
from didact.spec import ContaminationSpec, EvaluationSetSpec, SourceSpec


def against_texts(contamination: ContaminationSpec) -> Iterator[EvalText]:
    """The questions of every set in `data.contamination.against`; an item is named by its place, as `file:line`.

    Raises:
        DataError: a set cannot be read, or has no questions.
    """
    for each in contamination.against:
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
    settings = RowSettings(opened.options)
    for index, (form, raw) in enumerate(opened.rows):
        try:
            conversation = to_conversation(form, raw, index, settings)
        except BadRow:
            continue
        yield f"{raw.file}:{raw.line}", "\n".join(m.content for m in conversation.messages if m.role == "user")


def _field_texts(each: EvaluationSetSpec) -> Iterator[tuple[str, str]]:
    source = _source(each)
    options = row_options(source)
    path = str(each.question).split(".")
    for file in locate(source.name, source.path):
        for raw in file_rows(None, file.path, options, named=True):
            try:
                if raw.fault is not None:
                    continue
                record = decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content
            except BadRow:
                continue
            texts = list(_at(record, path))
            for number, text in enumerate(texts):
                yield f"{raw.file}:{raw.line}" + (f"[{number}]" if len(texts) > 1 else ""), text


def _at(value: Any, path: list[str]) -> Iterator[str]:
    """The texts at a path of keys; lists on the way are gone through."""
    if isinstance(value, list):
        for element in value:
            yield from _at(element, path)
    elif path and isinstance(value, dict):
        yield from _at(value.get(path[0]), path[1:])
    elif not path and isinstance(value, str) and value.strip():
        yield value
