"""JSON in a text: found, read, held against a schema."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import referencing
import referencing.jsonschema
import regex

from didact.errors import DataError
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.scorer import NamedScorer, accepted, field_of
from didact.files import fingerprint, members_once
from didact.spec import JsonSchemaScorer

_FENCE = re.compile(r"(?:```|~~~)[ \t]*(?:json[c5]?)?\s*(.*?)(?:```|~~~)", re.DOTALL | re.IGNORECASE)
_MOST_BRACKETS = 200
_PATTERN_SECONDS = 1.0
_SHOWN = 200
_MOST_LEVELS = 100


def json_schema_scorer(spec: JsonSchemaScorer) -> NamedScorer:
    """Right when the JSON in the text is as the schema says.

    Raises:
        DataError: the schema's file cannot be read, or is no schema.
    """
    schema = None if spec.schema_file is None else schema_of_file(spec.schema_file)
    version = f"json_schema, 3, {fingerprint(schema)}"
    return NamedScorer(partial(_score, schema), version, reads="whole", same=_one_form)


def check_schema(schema: Any) -> str | None:
    """What is wrong with a schema; None where nothing is."""
    if not isinstance(schema, dict):
        return f"found {type(schema).__name__}, expected a JSON schema, which is an object"
    try:
        jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator).check_schema(schema)
    except jsonschema.SchemaError as error:
        return f"is no JSON schema: {error.message[:_SHOWN]}"
    except (AttributeError, TypeError, ValueError) as error:  # `$schema` or `$id` of another kind
        return f"is no JSON schema: {type(error).__name__}: {str(error)[:_SHOWN]}"
    if (nowhere := _dangling(schema)) is not None:
        return f"has a $ref that leads nowhere: {nowhere[:_SHOWN]}"
    words = set(_words_of(schema))
    if {"unevaluatedProperties", "patternProperties"} <= words:
        return "has unevaluatedProperties beside patternProperties, for whose search there is no time limit"
    return None


def _dangling(schema: Mapping[str, Any]) -> str | None:
    """The first `$ref` of a schema that nothing in it answers; nothing is fetched from anywhere."""
    resource = referencing.Resource.from_contents(schema, default_specification=referencing.jsonschema.DRAFT202012)
    resolver = referencing.Registry().with_resource("", resource).resolver_with_root(resource)
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (referencing.exceptions.Unresolvable, ValueError, TypeError, LookupError):
            return reference
    return None


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict) and isinstance(reference := schema.get("$ref"), str):
        yield reference
    for each in _members(schema):
        yield from _references(each)


def _words_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema
    for each in _members(schema):
        yield from _words_of(each)


def fault_of(answer: str, schema: Any) -> str | None:
    """Why an accepted answer is not as a schema says, so that nothing could ever be right; None where it is.

    Args:
        answer: JSON.
        schema: one that `check_schema` has nothing against.
    """
    try:
        return _first_fault(schema, json.loads(answer))
    except (TimeoutError, RecursionError, ValueError, referencing.exceptions.Unresolvable):
        return None  # said of each question when it is scored


def schema_of_file(path: str) -> dict[str, Any]:
    """The schema of a file.

    Raises:
        DataError: it cannot be read, or is no schema.
    """
    try:
        schema = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"scorer.schema_file: {path} cannot be read as JSON: {error}") from None
    if (wrong := check_schema(schema)) is not None:
        raise DataError(f"scorer.schema_file: {path} {wrong}")
    found: dict[str, Any] = schema
    return found


def _score(schema: dict[str, Any] | None, question: Question, text: str) -> Score:
    schema = schema if schema is not None else _schema_of_row(question)
    if schema is None:
        return Score(problem="the row has no field `schema`, and scorer.schema_file is not set")
    try:
        value = read_json(text)
    except ValueError as error:
        return Score({"accuracy": 0.0, "valid": 0.0, "unread": 1.0}, note=str(error))
    try:
        wrong = _first_fault(schema, value)
    except TimeoutError:
        return Score(problem=f"a pattern of the schema was searched for longer than {_PATTERN_SECONDS:g} s")
    except (RecursionError, ValueError, referencing.exceptions.Unresolvable) as error:
        return Score(problem=f"the schema cannot be applied: {type(error).__name__}: {error}")
    aims = accepted(question)
    equal = not aims or any(_equals(value, aim) for aim in aims)
    note = wrong or ("" if equal else "as the schema says, and not the accepted answer")
    values = {"accuracy": float(wrong is None and equal), "valid": float(wrong is None), "unread": 0.0}
    return Score(values, json.dumps(value, ensure_ascii=False), note=note)


def _schema_of_row(question: Question) -> dict[str, Any] | None:
    schema = field_of(question, "schema")
    if isinstance(schema, str):  # as in a table of columns
        schema = json.loads(schema)
    return dict(schema) if isinstance(schema, Mapping) else None


def read_json(text: str) -> Any:
    """The JSON of a text: in its first block between fences that holds some, else all of it, else its longest piece.

    Raises:
        ValueError: there is none, or it is nested too deep to be read.
    """
    try:
        for piece in [*_FENCE.findall(text), text]:
            with contextlib.suppress(ValueError):
                return _not_too_deep(_DECODER.decode(piece.strip().removeprefix("\ufeff")))
        return _not_too_deep(_longest(text))
    except RecursionError:
        raise ValueError("its JSON is nested too deep to be read") from None


def _longest(text: str) -> Any:
    """The longest object or list in a text: `[1]` before it may be a mark of a source."""
    found: Any = None
    failure: ValueError | None = None
    longest, place = 0, 0
    for opens in islice(re.finditer(r"[{\[]", text), _MOST_BRACKETS):
        if opens.start() < place:
            continue
        try:
            value, end = _DECODER.raw_decode(text, opens.start())
        except ValueError as error:
            failure = failure or error
            continue
        if end - opens.start() > longest:
            found, longest = value, end - opens.start()
        place = end
    if longest:
        return found
    raise ValueError("it holds no JSON" if failure is None else f"its JSON cannot be read: {failure}")


def _not_too_deep(value: Any) -> Any:
    level: list[Any] = [value]
    for _ in range(_MOST_LEVELS):
        if not level:
            return value
        level = [inner for each in level for inner in _members(each)]
    raise RecursionError


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse(literal: str) -> Any:
    raise ValueError(f"{literal} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=members_once)


def _first_fault(schema: dict[str, Any], value: Any) -> str | None:
    plain = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    careful = jsonschema.validators.extend(plain, _CAREFUL)
    # An empty registry: nothing that a schema refers to is fetched from anywhere.
    validator = careful(schema, registry=referencing.Registry())
    fault = jsonschema.exceptions.best_match(validator.iter_errors(value))
    return None if fault is None else f"{fault.json_path}: {fault.message}"[:_SHOWN]


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """The schema's word `pattern`, with an end to its search."""
    if isinstance(value, str) and not _finds(pattern, value):
        yield jsonschema.ValidationError(f"{value[:_SHOWN]!r} does not match {pattern!r}")


def _finds(pattern: str, text: str) -> bool:
    return regex.search(pattern, text, timeout=_PATTERN_SECONDS) is not None


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], value: Any, schema: Any
) -> Iterator[jsonschema.ValidationError]:
    for pattern, inner in patterns.items() if isinstance(value, dict) else ():
        for name, member in value.items():
            if _finds(pattern, name):
                yield from validator.descend(member, inner, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, inner: Any, value: Any, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, member in value.items() if isinstance(value, dict) else ():
        if name in known or any(_finds(pattern, name) for pattern in patterns):
            continue
        if inner is False:
            yield jsonschema.ValidationError(f"{name!r} was unexpected: the schema allows no additional properties")
        else:
            yield from validator.descend(member, inner, path=name)


def _unique_items(validator: Any, unique: Any, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """By what items are, not each with each."""
    if unique and isinstance(value, list) and len({_one_form(json.dumps(each)) for each in value}) < len(value):
        yield jsonschema.ValidationError("an item stands twice")


def _multiple_of(validator: Any, step: Any, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """In decimals, as both are written: 19.99 is a multiple of 0.01."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and Fraction(str(value)) % Fraction(str(step)):
        yield jsonschema.ValidationError(f"{value} is not a multiple of {step}")


_CAREFUL = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "multipleOf": _multiple_of,
}
"""Words of a schema that take long with some texts, or are computed in binary, in the library's own way."""


def _equals(value: Any, aim: str) -> bool:
    try:
        return _one_form(json.dumps(value)) == _one_form(aim)
    except ValueError:
        return False


def _one_form(text: str) -> str:
    """JSON with keys in order, in which 5.0 is 5, as JSON Schema has it, and true is no 1."""
    return json.dumps(json.loads(text, parse_float=_plain_number), sort_keys=True, ensure_ascii=False)


def _plain_number(written: str) -> int | float:
    value = float(written)
    return int(value) if value.is_integer() else value
