"""What an answer must be, as clients say it: OpenAI's `response_format`, vLLM's `structured_outputs` and `guided_*`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from didact.serving.api.api_errors import ApiError, as_json
from didact.serving.api.chat_types import Body
from didact.serving.engine.grammar import lark
from didact.serving.engine.grammar.grammar import Grammar, GrammarError

_MOST_BYTES = 65_536
"""Of a grammar. Schemas of this size are compiled in a second or two; the time grows with the square."""
_KINDS = ("json", "regex", "choice", "grammar", "json_object")
STRUCTURED = f"an object with one of {', '.join(_KINDS)}"
_SCHEMA = "an object with name and schema"


class ResponseFormat(Body):
    """OpenAI's `response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = Field(default=None, description=_SCHEMA)


def asked_grammar(
    response_format: ResponseFormat | None, structured: Mapping[str, Any] | None, guided: Mapping[str, Any]
) -> Grammar | None:
    """The grammar that a body asks for.

    Args:
        response_format: OpenAI's.
        structured: vLLM's `structured_outputs`.
        guided: what vLLM's older `guided_*` say, by what stands behind the `_`.

    Raises:
        ApiError: 400 for what is no grammar, too large, or one of several.
    """
    asked = [_of_kind(kind, value, f"guided_{kind}") for kind, value in guided.items() if value is not None]
    if structured:
        asked += _of_structured(structured)
    if response_format is not None and response_format.type == "json_object":
        asked.append(lark.any_object("response_format"))
    elif response_format is not None and response_format.type == "json_schema":
        asked.append(_of_schema(response_format.json_schema))
    if not asked:
        return None
    if len(asked) > 1:
        raise _wrong(asked[1].field, f"found beside {asked[0].field}; expected one of them")
    size = len(asked[0].rules.encode("utf-8", errors="surrogatepass"))
    if size > _MOST_BYTES:
        raise _wrong(asked[0].field, f"found {size} bytes; expected at most {_MOST_BYTES}")
    return asked[0]


def _of_structured(structured: Mapping[str, Any]) -> list[Grammar]:
    given = {kind: value for kind, value in structured.items() if value is not None and value is not False}
    for kind, value in given.items():
        if kind not in _KINDS:
            raise _wrong(f"structured_outputs.{kind}", f"found {as_json(value)}; expected {STRUCTURED}")
    return [_of_kind(kind, value, f"structured_outputs.{kind}") for kind, value in given.items()]


def _of_schema(given: Mapping[str, Any] | None) -> Grammar:
    field = "response_format.json_schema"
    if given is None:
        raise ApiError(400, f"{field}: missing; expected {_SCHEMA}.", code="missing_required_parameter", param=field)
    for name in given:
        if name not in ("name", "description", "schema", "strict"):
            raise _wrong(f"{field}.{name}", f"unknown parameter; expected {_SCHEMA}")
    if given.get("schema") is None:
        return lark.any_object(f"{field}.schema")
    return _of_kind("json", given["schema"], f"{field}.schema")


def _of_kind(kind: str, value: Any, field: str) -> Grammar:
    if kind == "json_object":
        if value is not True:
            raise _wrong(field, f"found {as_json(value)}; expected true")
        return lark.any_object(field)
    if kind == "json":
        try:
            return lark.json_of(_schema(value, field), field)
        except GrammarError as error:
            raise ApiError(400, f"{error}.", code="invalid_grammar", param=field) from None
    if kind == "choice":
        if not isinstance(value, Sequence) or isinstance(value, str) or not value or not all(map(_is_text, value)):
            raise _wrong(field, f"found {as_json(value)}; expected a list of texts, none empty")
        return lark.one_of(value, field)
    if not _is_text(value):
        raise _wrong(field, f"found {as_json(value)}; expected text")
    return lark.matching(value, field) if kind == "regex" else lark.written(value, field)


def _schema(value: Any, field: str) -> dict[str, Any]:
    """A schema, which clients send as an object or as its JSON text."""
    try:
        schema = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise _wrong(field, f"found {as_json(value)}; expected a JSON schema, an object")
    return schema


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _wrong(param: str, message: str) -> ApiError:
    return ApiError(400, f"{param}: {message}.", code="invalid_value", param=param)
