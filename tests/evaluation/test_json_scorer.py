"""JSON in a model's words: found, held against a schema, compared as JSON Schema compares."""

import json
from functools import partial
from typing import Any

import pytest

from didact.errors import DataError
from didact.evaluation.scorers import build_scorer
from didact.evaluation.scorers.json_text import check_schema
from didact.spec import JsonSchemaScorer
from tests.fakes.scoring import question
from tests.fakes.scoring import score as scored

score = partial(scored, "json_schema")

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "name": {"type": "string", "pattern": "^[A-Z]"}},
    "required": ["age"],
}


@pytest.mark.parametrize(
    ("text", "valid", "unread"),
    [
        ('{"age": 3}', 1, 0),
        ('Here it is:\n```json\n{"age": 3, "name": "Bo"}\n```\nDone.', 1, 0),
        ('I say {"age": 3} and no more', 1, 0),
        ('{"age": "3"}', 0, 0),
        ('{"age": 3, "name": "bo"}', 0, 0),
        ('{"age": 3', 0, 1),
        ('{"age": NaN}', 0, 1),
        ("three", 0, 1),
        ("[" * 100_000, 0, 1),
        ("[" * 500 + "]" * 500, 0, 1),
        ('As in [1]: {"age": 3}', 1, 0),
        ('Fill in {name}: {"age": 3}.', 1, 0),
        ('```json {"age": 3}```', 1, 0),
        ('```\nnone\n```\n~~~json\n{"age": 3}\n~~~', 1, 0),
        ('\ufeff{"age": 3}', 1, 0),
    ],
)
def test_json_is_found_and_held_against_the_schema_of_the_row(text: str, valid: int, unread: int) -> None:
    found = score(text, schema=SCHEMA)
    assert found.values == {"accuracy": float(valid), "valid": float(valid), "unread": float(unread)}
    assert bool(found.note) != bool(valid)


def test_json_must_equal_the_accepted_answer_where_there_is_one() -> None:
    assert accuracy_of_json('{"b": [1, 2], "a": "x"}', '{"a": "x", "b": [1, 2]}') == (1.0, 1.0)
    assert accuracy_of_json('{"b": [2, 1], "a": "x"}', '{"a": "x", "b": [1, 2]}') == (0.0, 1.0)
    assert accuracy_of_json("true", "1") == (0.0, 1.0)


def accuracy_of_json(text: str, answer: str) -> tuple[float, float]:
    values = score(text, answer, schema={}).values
    return values["accuracy"], values["valid"]


def test_json_numbers_are_compared_as_json_schema_has_them() -> None:
    assert accuracy_of_json('{"price": 5.0}', '{"price": 5}') == (1.0, 1.0)
    assert accuracy_of_json("1e2", "100") == accuracy_of_json("-0.0", "0") == (1.0, 1.0)
    assert accuracy_of_json("5.5", "5") == (0.0, 1.0)
    cents = {"multipleOf": 0.01}
    assert [score(text, schema=cents).values["valid"] for text in ("19.99", "0.005")] == [1, 0]
    twice = score('{"price": 6, "price": 5}', '{"price": 5}', schema={})
    assert twice.values["accuracy"] == 0 and "its key 'price' stands twice" in twice.note


def test_a_schema_ends_its_search_whichever_word_begins_it() -> None:
    evil, name = {"^(a|aa)+$": {"type": "string"}}, "a" * 40 + "!"
    for schema in ({"patternProperties": evil}, {"patternProperties": evil, "additionalProperties": False}):
        assert "was searched for longer than" in str(score(f'{{"{name}": 1}}', schema=schema).problem)
    fine = {"properties": {"a": {}}, "patternProperties": {"^x-": {"type": "number"}}, "additionalProperties": False}
    for text, valid in (('{"a": 1, "x-b": 2}', 1), ('{"x-b": "2"}', 0), ('{"b": 2}', 0)):
        assert score(text, schema=fine).values["valid"] == valid
    numbers = {"additionalProperties": {"type": "number"}}
    assert [score(text, schema=numbers).values["valid"] for text in ('{"b": 2}', '{"b": ""}')] == [1, 0]
    many = [{"n": each} for each in range(5000)]
    unique = {"uniqueItems": True}
    assert score(json.dumps(many), schema=unique).values["valid"] == 1
    assert score(json.dumps([*many, {"n": 0.0}]), schema=unique).values["valid"] == 0


@pytest.mark.parametrize("schema", [{"$schema": 5}, {"$schema": ["x"]}])
def test_a_schema_of_no_kind_is_said_so(schema: Any) -> None:
    assert "is no JSON schema" in str(check_schema(schema))


@pytest.mark.parametrize("reference", ["#/nope", "#nowhere", "other.json", "http://127.0.0.1:9/schema.json"])
def test_a_reference_that_leads_nowhere_is_said_before_anything_is_asked(reference: str) -> None:
    inside = {"items": {"$ref": reference}}
    assert f"has a $ref that leads nowhere: {reference}" in str(check_schema(inside))
    known = {"$defs": {"n": {"type": "number"}}, "items": {"$ref": "#/$defs/n"}}
    assert check_schema(known) is None and check_schema({"$ref": "#"}) is None


def test_a_schema_whose_search_has_no_end_is_refused() -> None:
    schema = {"items": {"unevaluatedProperties": False, "patternProperties": {"^a": {}}}}
    assert "unevaluatedProperties beside patternProperties" in str(check_schema(schema))


def test_a_schema_fetches_nothing_and_never_searches_for_years() -> None:
    away = score("1", schema={"$ref": "http://127.0.0.1:9/schema.json"})
    assert "cannot be applied" in str(away.problem)
    loop = score("1", schema={"$ref": "#"})
    assert "cannot be applied" in str(loop.problem)
    assert "schema" in str(score("1").problem)


def test_a_schema_in_a_file_is_checked_before_anything_is_asked(tmp_path: Any) -> None:
    file = tmp_path / "schema.json"
    scorer = JsonSchemaScorer(name="json_schema", schema_file=str(file))
    with pytest.raises(DataError, match=r"scorer\.schema_file: .*schema\.json cannot be read"):
        build_scorer(scorer)
    file.write_text('{"type": "nothing"}')
    with pytest.raises(DataError, match="is no JSON schema"):
        build_scorer(scorer)
    file.write_text('{"type": "array"}')
    first = build_scorer(scorer)
    assert [first.score(question(), text).values["accuracy"] for text in ("[]", "{}")] == [1, 0]
    file.write_text('{"type": "object"}')
    assert build_scorer(scorer).version != first.version
