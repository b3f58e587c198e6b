"""Fields as a dataset names them -> fields as the forms of `records` name them.

A rule says where a role's text comes from:

    response                      the field
    question.full_text            a field of a field
    answers.0                     an item of a list
    analysis|answer               the first of these that is there and not empty
    context?                      may be absent or null
    The row says: {a.b}           a text with fields in it; numbers are written out
    [title, ask?]                 several, a blank line between them; empty ones are left out
    {from: label, values: {...}}  a value replaced by its text
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from didact.datasets.rows.decoding import decode_json
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.spec import Spec

_HOLE = re.compile(r"\{([^{}]+)\}")
_ABSENT = object()


class ValueRule(Spec):
    """A field whose values stand for texts, such as a label or the name of a task."""

    source: str = Field(alias="from")
    """Where the value is."""
    values: dict[str, str]
    """Value, written as text -> what takes its place. Other values are refused."""


Rule = str | tuple[str, ...] | ValueRule


class FieldMapping(Spec):
    """From a raw row to records that a form can read."""

    each: str | None = None
    """A list inside the row: every element becomes a record of its own, with the row's other fields beside its own."""
    fields: dict[str, Rule] = Field(default_factory=dict)
    """Role (such as `instruction`, `input`, `output`) -> rule. Empty: the row is in its form already."""

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.each or self.fields)


def map_rows(mapping: FieldMapping, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    """Bring raw rows into the shape of their form; a row that the mapping does not fit keeps its bytes and a fault."""
    for raw in rows:
        if raw.fault is not None:
            yield raw
            continue
        try:
            whole = decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content
            records = list(map_record(mapping, whole))
        except BadRow as bad:
            yield replace(raw, fault=bad)
            continue
        for number, record in enumerate(records, start=1):
            element = number if mapping.each else raw.element
            if isinstance(record, BadRow):
                yield replace(raw, fault=record, element=element)
            else:
                yield replace(raw, content=record, element=element)


def map_record(mapping: FieldMapping, record: dict[str, Any]) -> Iterator[dict[str, Any] | BadRow]:
    """The records that one raw record holds; an element that the rules do not fit is told as the reason it is refused.

    Raises:
        BadRow: the list named by `each` is not there.
    """
    for item in [record] if mapping.each is None else _elements(record, mapping.each):
        if not mapping.fields:
            yield item
            continue
        try:
            yield {role: value for role, rule in mapping.fields.items() if (value := _value(item, rule)) is not _ABSENT}
        except BadRow as bad:
            yield bad


def _elements(record: dict[str, Any], path: str) -> Iterator[dict[str, Any]]:
    items = _walk(record, path)
    if not isinstance(items, list):
        raise BadRow("wrong_type", f"field {path!r} is {type(items).__name__}, expected a list")
    for item in items:
        yield {**record, **(item if isinstance(item, dict) else {"item": item})}


def _value(record: Mapping[str, Any], rule: Rule) -> Any:
    if isinstance(rule, ValueRule):
        value = _written(_walk(record, rule.source), rule.source)
        if value not in rule.values:
            raise BadRow("wrong_type", f"field {rule.source!r} is {value!r}, expected {', '.join(rule.values)}")
        return rule.values[value]
    if isinstance(rule, tuple):
        parts = (_value(record, part) for part in rule)
        return "\n\n".join(part for part in parts if isinstance(part, str) and part.strip())
    if _HOLE.search(rule):
        return _HOLE.sub(lambda hole: _written(_chosen(record, hole[1]), hole[1]), rule)
    return _chosen(record, rule)


def _chosen(record: Mapping[str, Any], rule: str) -> Any:
    *others, last = rule.split("|")
    for path in others:
        value = _optional(record, path)
        if value not in (_ABSENT, None, "", []):
            return value
    if last.endswith("?"):
        value = _optional(record, last.removesuffix("?"))
        return _ABSENT if value is None else value
    return _walk(record, last)


def _optional(record: Any, path: str) -> Any:
    try:
        return _walk(record, path)
    except BadRow:
        return _ABSENT


def _walk(record: Any, path: str) -> Any:
    value = record
    for part in path.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            found = ", ".join(repr(name) for name in list(value)[:10]) if isinstance(value, Mapping) else _kind(value)
            raise BadRow("missing_field", f"field {path!r} is missing; found {found or 'none'}")
    return value


def _kind(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__


def _written(value: Any, path: str) -> str:
    writers: dict[type, Callable[[Any], str]] = {str: str, int: str, float: repr}
    write = writers.get(type(value))
    if value is _ABSENT:
        return ""
    if write is None:
        raise BadRow("wrong_type", f"field {path!r} is {type(value).__name__}, expected text or a number")
    return write(value)
