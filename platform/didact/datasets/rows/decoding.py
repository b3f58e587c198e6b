"""Bytes of one row -> plain values, stricter than `json.loads`: what another tool would read differently is refused."""

import json
from typing import Any, NoReturn

import orjson

from didact.datasets.rows.raw_row import BadRow


def decode_json(raw: bytes) -> dict[str, Any]:
    """One JSON object.

    Raises:
        BadRow: not UTF-8, NUL, broken JSON, a key given twice, NaN or Infinity, or not an object.
    """
    return check_object(parse_json(raw))


def parse_json(raw: bytes) -> Any:
    """One JSON value.

    Raises:
        BadRow: not UTF-8, NUL, broken JSON, a key given twice, NaN or Infinity.
    """
    value = _parse_plain(raw)
    if value is not None:
        return value
    try:
        return json.loads(decode_text(raw), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRow("broken_json", str(error)) from None


def _parse_plain(raw: bytes) -> dict[str, str] | None:
    """An object of texts, which most rows are, at several times the speed; None for anything else or doubtful.

    A key given twice is seen by the number of quotes: four for each member, those inside texts left out.
    """
    if b"\\\\" in raw or b"\0" in raw:
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict or not all(type(member) is str for member in value.values()):
        return None
    return value if raw.count(b'"') - raw.count(b'\\"') == 4 * len(value) else None


def check_object(value: Any) -> dict[str, Any]:
    """Return `value`, which must be a JSON object.

    Raises:
        BadRow: it is something else.
    """
    if not isinstance(value, dict):
        raise BadRow("not_an_object", f"found {type(value).__name__}, expected an object with named fields")
    return value


def decode_columns(raw: bytes) -> list[str]:
    r"""The columns of a tab-separated line; the two characters `\n` stand for a line break. Quotes are plain text.

    Raises:
        BadRow: not UTF-8, or NUL.
    """
    return [column.replace("\\n", "\n") for column in decode_text(raw).split("\t")]


def decode_text(raw: bytes) -> str:
    """UTF-8 text.

    Raises:
        BadRow: not UTF-8, or NUL.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {raw[error.start]:#04x} at position {error.start} of the row"
        raise BadRow("not_utf8", f"{where}; files in another encoding need options.encoding") from None
    if "\0" in text:
        raise BadRow("nul", f"NUL character at position {text.index(chr(0))} of the row")
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadRow("duplicate_key", f"key {twice!r} is given more than once")
    return fields


def _refuse_constant(literal: str) -> NoReturn:
    raise BadRow("not_a_number", f"{literal} is not JSON")
