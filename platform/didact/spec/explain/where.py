"""Plain data that knows the lines it was read from."""

from typing import Any

from didact.spec.explain.schema import Path, value_at


class Lined(dict[Any, Any]):
    """A mapping of a file."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[Any, int] = {}
        """Key -> line, counted from 1; a key that an override set has none."""


def line_of(values: Any, path: Path) -> int | None:
    """The line of the last key of `path` that is there; 0 where an override set it; None for data of no file."""
    line, lined = None, False
    for part in path:
        if isinstance(values, Lined):
            lined = True
            if part not in values:
                break
            line = values.lines.get(part, 0)
        elif isinstance(values, dict) and lined and part in values:
            line = 0
        if line == 0:
            break
        values = value_at(values, (part,))
    return line


def plain(values: Any) -> Any:
    """The same data in plain mappings and lists."""
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items()}
    return [plain(item) for item in values] if isinstance(values, list) else values
