"""Values and settings as people write them."""

import json
import re
import shlex
from typing import Any

from didact.spec.explain.schema import Path

_LONGEST = 60
_MARKS = ":#{}[],&*!|>'\"%@`\\?"
_NOT_PLAIN = re.compile(r"^[\s\[{&*!|>'\"%@`#?-]|: |:$| #|\s$")
_NO_TEXT = re.compile(r"|true|false|null|yes|no|on|off|~|[-+.\d][-+.,_:\deE]*", re.IGNORECASE)


def dotted(path: Path) -> str:
    """`data.sources.0.weight`."""
    return ".".join(map(str, path))


def shown(value: Any) -> str:
    """A value as YAML on one line, cut where it is long; texts in quotes, so that `'8'` and `8` differ."""
    text = _quoted(value) if isinstance(value, str) else _flow(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _flow(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    """Text in quotes where YAML would read something else without."""
    is_marked = value != value.strip() or any(mark in value for mark in _MARKS)
    return _quoted(value) if is_marked or _NO_TEXT.fullmatch(value) else value


def _quoted(value: str) -> str:
    """In single quotes, where a backslash is one; in double ones where a character cannot stand for itself."""
    return "'" + value.replace("'", "''") + "'" if value.isprintable() else json.dumps(value, ensure_ascii=False)


def setting(path: str, value: Any, override: bool) -> str:
    """`path: value` for a file, `path=value` as typed in a shell for the command line."""
    if not override:
        return f"{path}: {_flow(value)}"
    if isinstance(value, dict) and value:
        return " ".join(setting(f"{path}.{key}", inner, override) for key, inner in value.items())
    is_plain = isinstance(value, str) and not (_NO_TEXT.fullmatch(value) or _NOT_PLAIN.search(value))
    return shlex.quote(f"{path}={value if is_plain else _flow(value)}")


def settings(wanted: dict[str, Any], override: bool) -> str:
    """Several settings in a row; those of one mapping together, where a file is written."""
    if override:
        return " ".join(setting(path, value, override) for path, value in wanted.items())
    groups: dict[str, dict[str, Any]] = {}
    for path, value in wanted.items():
        parent, _, key = path.rpartition(".")
        groups.setdefault(parent, {})[key] = value
    parts = []
    for parent, inner in groups.items():
        if parent and len(inner) > 1:
            parts.append(setting(parent, inner, override))
        else:
            parts += [setting(f"{parent}.{key}" if parent else key, value, override) for key, value in inner.items()]
    return " and ".join(parts)
