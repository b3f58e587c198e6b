"""What pydantic found wrong, told in the words of the file: one complaint for one mistake."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from didact.spec.explain.keys import Said, unknown_key
from didact.spec.explain.paths import Found, with_paths
from didact.spec.explain.schema import Path, describe, value_at
from didact.spec.explain.shown import dotted
from didact.spec.explain.values import wrong_value
from didact.spec.explain.where import line_of


def complaints(model: type[BaseModel], values: Any, errors: list[Any]) -> list[str]:
    """The mistakes, one a line.

    Args:
        model: what the data should be.
        values: the data; `Lined` mappings give line numbers.
        errors: of pydantic's `ValidationError.errors()`.
    """
    found = with_paths(model, values, errors)
    # What one alternative's own check says of a value tells more than that it is none of the others.
    checked = {each.path for each in found if each.kind == "value_error"}
    found = [each for each in found if each.kind == "value_error" or each.path not in checked]
    told = [each for error in found for each in _complain(model, values, error)]
    return [_line(values, each.said) for each in _without_consequences(told)]


@dataclass(frozen=True)
class _Complaint:
    said: Said
    may_follow: bool
    """Whether another mistake may be the reason, as of a check of several fields or a key that is missing."""


def _complain(model: type[BaseModel], values: Any, found: Found) -> list[_Complaint]:
    if found.kind in ("extra_forbidden", "invalid_key"):
        return [_Complaint(said, False) for said in unknown_key(model, values, found.path)]
    if found.kind == "missing":
        expected = f" ({describe(found.alternatives)})" if found.alternatives else ""
        return [_Complaint(Said(found.path, f"missing; this key is required{expected}"), True)]
    if found.kind == "value_error":
        return [_Complaint(Said(found.path, found.message), True)]
    value = value_at(values, found.path)
    return [_Complaint(wrong_value(model, values, found.path, value, found.alternatives), False)]


def _without_consequences(told: list[_Complaint]) -> list[_Complaint]:
    """Leave out what is said twice about a path, what mistakes further inside explain, and what others repair."""
    written = [tuple(setting.split(".")) for each in told for setting in each.said.settings]
    kept: list[_Complaint] = []
    paths = [_words(each.said.path) for each in told]
    for each, path in zip(told, paths, strict=True):
        inside = any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        repaired = each.may_follow and any(setting[: len(path)] == path for setting in written)
        if not (inside or repaired or any(_words(other.said.path) == path for other in kept)):
            kept.append(each)
    return kept


def _words(path: Path) -> tuple[str, ...]:
    return tuple(map(str, path))


def _line(values: Any, said: Said) -> str:
    line = line_of(values, said.path)
    where = "" if line is None else f"line {line}: " if line else "override: "
    return f"{where}{dotted(said.path)}: {said.text}" if said.path else f"{where}{said.text}"
