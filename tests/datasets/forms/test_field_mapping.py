import json
from collections.abc import Iterator
from typing import Any

import pytest

from didact.datasets.forms.field_mapping import FieldMapping, map_rows
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.errors import SpecError
from didact.spec import validate


def mapping(**values: Any) -> FieldMapping:
    made: FieldMapping = validate(FieldMapping, values, "mapping")
    return made


def mapped(record: dict[str, Any], **values: Any) -> list[Any]:
    rows = map_rows(mapping(**values), iter([RawRow("f", 1, 0, json.dumps(record).encode())]))
    return [(raw.fault.reason, raw.fault.detail) if raw.fault else raw.content for raw in rows]


@pytest.mark.parametrize(
    ("rule", "record", "text"),
    [
        ("reply", {"reply": "a"}, "a"),
        ("q.text", {"q": {"text": "a"}}, "a"),
        ("answers.1", {"answers": ["a", "b"]}, "b"),
        ("why|answer", {"why": "", "answer": "b"}, "b"),
        ("why|answer", {"why": "a", "answer": "b"}, "a"),
        ("why|answer", {"why": None, "answer": "b"}, "b"),
        ("{n} of {q.size}: {x}", {"n": 1, "q": {"size": 2.5}, "x": "a"}, "1 of 2.5: a"),
        (["title", "ask?"], {"title": "a", "ask": "b"}, "a\n\nb"),
        (["title", "ask?"], {"title": "a"}, "a"),
        (["title", "ask?"], {"title": "a", "ask": " "}, "a"),
        ({"from": "label", "values": {"1": "yes", "0": "no"}}, {"label": 0}, "no"),
        ({"from": "label", "values": {"E": "entailed"}}, {"label": "E"}, "entailed"),
    ],
)
def test_rules(rule: Any, record: dict[str, Any], text: str) -> None:
    assert mapped(record, fields={"output": rule}) == [{"output": text}]


def test_an_optional_field_that_is_absent_or_null_is_left_out() -> None:
    assert mapped({}, fields={"input": "context?"}) == [{}]
    assert mapped({"context": None}, fields={"input": "context?"}) == [{}]


@pytest.mark.parametrize(
    ("rule", "record", "fault"),
    [
        ("reply", {"answer": "a"}, ("missing_field", "field 'reply' is missing; found 'answer'")),
        ("answers.2", {"answers": ["a"]}, ("missing_field", "field 'answers.2' is missing; found a list of 1")),
        ("why|answer", {"why": ""}, ("missing_field", "field 'answer' is missing; found 'why'")),
        ("{q}", {"q": ["a"]}, ("wrong_type", "field 'q' is list, expected text or a number")),
        ("{q}", {"q": True}, ("wrong_type", "field 'q' is bool, expected text or a number")),
        ({"from": "label", "values": {"1": "yes"}}, {"label": 2}, ("wrong_type", "field 'label' is '2', expected 1")),
    ],
)
def test_a_row_that_a_rule_does_not_fit_is_refused_with_its_bytes(rule: Any, record: Any, fault: Any) -> None:
    raw = RawRow("f", 7, 3, json.dumps(record).encode())
    (made,) = map_rows(mapping(fields={"output": rule}), iter([raw]))
    assert made.fault is not None
    assert (made.fault.reason, made.fault.detail) == fault
    assert (made.line, made.byte_offset, made.content) == (7, 3, raw.content)


def test_each_makes_a_record_of_every_element_beside_the_rows_own_fields() -> None:
    record = {"task": "copy", "items": [{"q": "a", "r": "b"}, {"q": "c"}, {"q": "d", "r": "e"}]}
    fields = {"instruction": "task", "input": "q", "output": "r"}
    first, bad, last = mapped(record, each="items", fields=fields)
    assert first == {"instruction": "copy", "input": "a", "output": "b"}
    assert bad[0] == "missing_field"
    assert last == {"instruction": "copy", "input": "d", "output": "e"}


def test_each_without_fields_hands_on_the_elements() -> None:
    assert mapped({"items": ["a"]}, each="items") == [{"items": ["a"], "item": "a"}]


def test_a_list_that_is_not_there_refuses_the_whole_row() -> None:
    assert mapped({"items": "a"}, each="items") == [("wrong_type", "field 'items' is str, expected a list")]


def test_rows_that_are_bad_already_stay_so() -> None:
    def rows() -> Iterator[RawRow]:
        yield RawRow("f", 1, 0, b"{", None)
        yield RawRow("f", 2, 1, b"x", BadRow("too_long", "y"))

    reasons = [raw.fault.reason for raw in map_rows(mapping(fields={"output": "a"}), rows()) if raw.fault]
    assert reasons == ["broken_json", "too_long"]


def test_an_unknown_key_of_a_mapping_is_refused() -> None:
    with pytest.raises(SpecError, match=r"field: unknown key; did you mean .*fields"):
        mapping(field={"output": "a"})
