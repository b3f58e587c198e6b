"""One line of a batch: read, answered as the API would answer it, written.

bytes -> BatchLine.parse -> answered_line(gateway, line) -> a record of the output
"""

import asyncio
import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from didact.errors import DataError
from didact.serving.api.api_errors import as_json
from didact.serving.api.gateway import Gateway, as_api_error
from didact.serving.api.keys import Key
from didact.serving.api.parameters import ANSWERED_PATHS

_MARKS = ("custom_id", "method", "url", "body")
_LONGEST_ID = 512
_LONGEST_PAUSE_SECONDS = 30.0
_COME_AGAIN = (429, 503)


@dataclass(frozen=True, slots=True)
class LineError:
    """Why a line is no request."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request of a batch."""

    line: int
    """Counted from 1."""
    custom_id: str | None
    url: str = ""
    body: dict[str, Any] | None = None
    """None when the line is no request."""
    error: LineError | None = None

    @classmethod
    def parse(cls, line: int, text: bytes) -> "BatchLine":
        """Read one line; what is wrong with it goes into `error`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            return cls(line, None, error=LineError("invalid_json_line", f"line {line} is not valid JSON: {error}"))
        if not isinstance(values, dict):
            found = type(values).__name__
            return cls(
                line, None, error=LineError("invalid_json_line", f"line {line}: expected an object, found {found}")
            )
        named = values.get("custom_id")
        custom_id = named if isinstance(named, str) and 0 < len(named) <= _LONGEST_ID and _is_text(named) else None
        wrong = _what_is_wrong(line, values, custom_id)
        if wrong is not None:
            return cls(line, custom_id, error=wrong)
        return cls(line, custom_id, values["url"], values["body"])

    @property
    def model(self) -> str | None:
        """The model that it names, where it is a text."""
        named = None if self.body is None else self.body.get("model")
        return named if isinstance(named, str) else None

    def refused(self) -> dict[str, Any]:
        """The output of a line that is no request."""
        assert self.error is not None
        message = self.error.message.encode("utf-8", errors="replace").decode()  # it may show half a surrogate pair
        return _record(self.custom_id, None, {"code": self.error.code, "message": message})


def are_batch_lines(texts: Iterable[bytes]) -> bool:
    """Whether a file holds a batch: its first object has `custom_id` and `body`, and asks nothing by itself."""
    for text in texts:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict):
            return {"custom_id", "body"} <= values.keys() and not {"prompt", "messages", "instruction"} & values.keys()
    return False


def without_doubles(lines: Iterable[BatchLine]) -> list[BatchLine]:
    """The lines, where each that bears the id of an earlier one is refused."""
    first: dict[str, int] = {}
    found = []
    for each in lines:
        if each.custom_id is not None and each.error is None:
            before = first.setdefault(each.custom_id, each.line)
            if before != each.line:
                message = f"line {each.line}: custom_id {as_json(each.custom_id)} is that of line {before} already"
                each = replace(each, body=None, error=LineError("duplicate_custom_id", message, "custom_id"))
        found.append(each)
    return found


async def answered_line(
    gateway: Gateway, line: BatchLine, key: Key | None = None, *, patience_seconds: float = 600
) -> dict[str, Any]:
    """The output of a line.

    Args:
        gateway: answers it.
        line: what the input says.
        key: whose limits count.
        patience_seconds: how long a line waits where the API says to come again: a full queue, a reached limit, a
            replica that was lost.
    """
    if line.body is None:
        return line.refused()
    content, request_id = json.dumps(line.body).encode(), uuid.uuid4().hex
    until = time.monotonic() + patience_seconds
    while True:
        try:
            body, status = await gateway.answer_body(line.url, content, key), 200
        except Exception as error:  # noqa: BLE001 - logged where nobody expected it, and told in the line's own answer
            told = as_api_error(error)
            pause = min(float(told.retry_after or 1), _LONGEST_PAUSE_SECONDS)
            if told.status in _COME_AGAIN and time.monotonic() + pause < until:
                await asyncio.sleep(pause)
                continue
            body, status = told.body, told.status
        return _record(line.custom_id, {"status_code": status, "request_id": request_id, "body": body}, None)


def has_failed(record: dict[str, Any]) -> bool:
    """Whether an output line holds no answer."""
    return record["response"] is None or record["response"]["status_code"] != 200


def check_same(record: dict[str, Any], line: BatchLine | None, output: object) -> None:
    """Nothing, where a line of an earlier output belongs to this line of the input.

    Raises:
        DataError: it does not.
    """
    if line is None or record.get("custom_id", "") != line.custom_id or "response" not in record:
        raise DataError(f"{output} holds answers to other lines than this input's; give another output or remove it")


def _what_is_wrong(line: int, values: dict[str, Any], custom_id: str | None) -> LineError | None:
    if missing := [name for name in _MARKS if name not in values]:
        message = f"line {line}: {missing[0]} is missing; expected {', '.join(_MARKS)}"
        return LineError("missing_required_parameter", message, missing[0])
    checks = {
        "custom_id": (custom_id is not None, "invalid_custom_id", f"text of 1 to {_LONGEST_ID} characters"),
        "method": (values["method"] == "POST", "invalid_method", '"POST"'),
        "url": (
            isinstance(values["url"], str) and values["url"] in ANSWERED_PATHS,
            "invalid_url",
            " or ".join(ANSWERED_PATHS),
        ),
        "body": (isinstance(values["body"], dict), "invalid_body", "an object"),
    }
    for name, (good, code, expected) in checks.items():
        if not good:
            return LineError(code, f"line {line}: {name}: found {as_json(values[name])}; expected {expected}", name)
    return None


def _is_text(value: str) -> bool:
    """Whether no half of a surrogate pair is in it, which no file can hold."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _record(custom_id: str | None, response: dict[str, Any] | None, error: dict[str, str] | None) -> dict[str, Any]:
    return {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": custom_id, "response": response, "error": error}
