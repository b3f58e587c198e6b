"""JSON in a text: found, read, held against a schema."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import referencing
import regex

from didact.errors import DataError
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.scorer import NamedScorer, accepted, field_of
from didact.files import fingerprint
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
    version = f"json_schema, 2, {fingerprint(schema)}"
    return NamedScorer(partial(_score, schema), version, reads="whole", same=_one_form)


def check_schema(schema: Any) -> str | None:
    """What is wrong with a schema; None where nothing is."""
    if not isinstance(schema, dict):
        return f"found {type(schema).__name__}, expected a JSON schema, which is an object"
    try:
        jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator).check_schema(schema)
    except jsonschema.SchemaError as error:
        return f"is no JSON schema: {error.message[:_SHOWN]}"
    return None


def fault_of(answer: str, schema: Any) -> str | None:
    """Why an accepted answer is not as a schema says, so that nothing could ever be right; None where it is.

    Args:
        answer: JSON.
        schema: one that `check_schema` has nothing against.
    """
    try:
        return _first_fault(schema, json.loads(answer))
    except (TimeoutError, RecursionError, referencing.exceptions.Unresolvable):
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
    except (RecursionError, referencing.exceptions.Unresolvable) as error:
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


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _first_fault(schema: dict[str, Any], value: Any) -> str | None:
    plain = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    careful = jsonschema.validators.extend(plain, {"pattern": _pattern})
    # An empty registry: nothing that a schema refers to is fetched from anywhere.
    validator = careful(schema, registry=referencing.Registry())
    fault = jsonschema.exceptions.best_match(validator.iter_errors(value))
    return None if fault is None else f"{fault.json_path}: {fault.message}"[:_SHOWN]


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """The schema's word `pattern`, with an end to its search."""
    if isinstance(value, str) and not regex.search(pattern, value, timeout=_PATTERN_SECONDS):
        yield jsonschema.ValidationError(f"{value[:_SHOWN]!r} does not match {pattern!r}")


def _equals(value: Any, aim: str) -> bool:
    try:
        return _one_form(json.dumps(value)) == _one_form(aim)
    except ValueError:
        return False


def _one_form(text: str) -> str:
    """JSON with keys in order, in which true is no 1."""
    return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
