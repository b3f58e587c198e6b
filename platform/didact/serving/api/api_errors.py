"""Errors as OpenAI's clients expect them: a status, and a body of message, type, param and code."""

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from didact.spec.explain.paths import with_paths
from didact.spec.explain.schema import Path, at, describe, is_model, value_at

_LONGEST = 80


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
        final: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.final = final
        """Whether OpenAI's clients must not send the request again by themselves, as they do after a 500."""

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {...}}`."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, "invalid_request_error")
        if self.status >= 500:
            kind = "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, headers: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None) -> JSONResponse:
        """The HTTP answer, with `body` in place of OpenAI's."""
        extra = {"retry-after": str(self.retry_after)} if self.retry_after is not None else {}
        if self.status in (408, 413):  # the rest of the body is not waited for
            extra["connection"] = "close"
        if self.final:
            extra["x-should-retry"] = "false"
        return JSONResponse(body or self.body, status_code=self.status, headers={**(headers or {}), **extra})


def unknown_model(model: str) -> ApiError:
    """404 for a `model` that is neither the base nor registered."""
    message = f"The model {model[:200]!r} does not exist here; GET /v1/models lists what does."
    return ApiError(404, message, code="model_not_found", param="model")


def unsupported(param: str, message: str) -> ApiError:
    """400 for a parameter that means something to OpenAI and cannot be honoured here."""
    return ApiError(400, message, code="unsupported_parameter", param=param)


def as_json(value: Any) -> str:
    """A value as the client wrote it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def invalid_body(kind: type[BaseModel], values: Any, error: ValidationError) -> ApiError:
    """400 naming the first field that is wrong, what was found there and what is expected.

    Args:
        kind: what the body should be.
        values: the body.
        error: what pydantic found wrong in it.
    """
    found = with_paths(kind, values, error.errors())
    first = max((each for each in found if each.path[:1] == found[0].path[:1]), key=lambda each: len(each.path))
    path, alternatives = first.path, [each for each in first.alternatives if each.type is not NoneType]
    expected = describe(alternatives)
    for length in range(len(path), 0, -1):
        field = _field(kind, path[:length], values)
        if field is not None:
            if field.description:
                path, expected = path[:length], field.description
            break
    param = ".".join(map(str, path))
    if first.kind == "missing":
        return ApiError(400, f"{param}: missing; expected {expected}.", code="missing_required_parameter", param=param)
    message = f"{param}: found {as_json(value_at(values, path))}; expected {expected}."
    return ApiError(400, message, code="invalid_value", param=param)


def _field(kind: type[BaseModel], path: Path, values: Any) -> FieldInfo | None:
    """The field at a path, None for a place inside a field's list."""
    models = [each.type for each in at(kind, path[:-1], values) if is_model(each)]
    return next((each.model_fields[path[-1]] for each in models if path[-1] in each.model_fields), None)
