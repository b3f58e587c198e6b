"""Errors as OpenAI's clients expect them: a status, and a body of message, type, param and code."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ValidationError

_UNION_TAGS = {"str", "int", "float", "bool"}


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

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The HTTP answer."""
        extra = {"retry-after": str(self.retry_after)} if self.retry_after is not None else {}
        if self.final:
            extra["x-should-retry"] = "false"
        return JSONResponse(self.body, status_code=self.status, headers={**(headers or {}), **extra})


def unknown_model(model: str) -> ApiError:
    """404 for a `model` that is neither the base nor registered."""
    message = f"The model {model[:200]!r} does not exist here; GET /v1/models lists what does."
    return ApiError(404, message, code="model_not_found", param="model")


def unsupported(param: str, message: str) -> ApiError:
    """400 for a parameter that means something to OpenAI and cannot be honoured here."""
    return ApiError(400, message, code="unsupported_parameter", param=param)


def invalid_body(error: ValidationError) -> ApiError:
    """400 naming the first field that is wrong."""
    detail = error.errors()[0]
    if detail["type"] == "json_invalid":
        reason = detail["ctx"]["error"]
        return ApiError(400, f"The body is not valid JSON: {reason}.", code="invalid_json")
    parts = [str(part) for part in detail["loc"] if str(part) not in _UNION_TAGS and "[" not in str(part)]
    param = ".".join(parts) or None
    code = "missing_required_parameter" if detail["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{param or 'The body'}: {detail['msg']}.", code=code, param=param)
