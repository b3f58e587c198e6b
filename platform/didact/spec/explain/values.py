"""A value that its field cannot take: what was meant by it."""

import difflib
import math
import re
import types
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from didact.spec.explain.keys import Said, fit
from didact.spec.explain.paths import in_this_source, refused
from didact.spec.explain.schema import (
    Expected,
    Path,
    at,
    choices_of,
    describe,
    is_list,
    is_model,
    items_of,
    with_what_it_needs,
)
from didact.spec.explain.shown import dotted, settings, shown
from didact.spec.explain.translate import as_word, in_field, translate, words
from didact.spec.explain.where import line_of

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def wrong_value(model: type[BaseModel], values: Any, path: Path, value: Any, alternatives: Sequence[Expected]) -> Said:
    """What to say about `value` at `path`, where one of `alternatives` belongs."""
    override = line_of(values, path) == 0
    found = f"found {shown(value)}"
    for wanted in _meant(model, values, path, value, alternatives):
        if wanted == {dotted(path): value}:
            continue  # what stands there
        if wanted and not refused(model, values, wanted) and all(at(model, tuple(each.split("."))) for each in wanted):
            return Said(path, f"{found}; write {settings(wanted, override)}", wanted)
    if isinstance(value, float) and not math.isfinite(value):
        return Said(path, f"{found}; expected a finite number")
    return Said(path, f"{found}; {_hint(model, path, value, alternatives)}expected {describe(alternatives)}")


def _meant(
    model: type[BaseModel], values: Any, path: Path, value: Any, alternatives: Sequence[Expected]
) -> list[dict[str, Any]]:
    """Settings that may have been meant, the likeliest first."""
    field = ".".join("0" if isinstance(part, int) else str(part) for part in path)
    wanted = [in_field(field, value)]
    answer = translate(str(path[-1]) if path else "", value, values, lambda each: fit(model, values, each))
    if answer and field not in answer.settings:
        wanted.append(answer.settings)
    inside = words().inside.get(field)
    if inside and isinstance(value, str | int | float | list) and not isinstance(value, bool):
        wanted.append(in_field(f"{field}.{inside}", value))
    if (inner := words().inside.get(f"{field}.0")) and isinstance(value, str):
        wanted.append({field: [{inner: value}]})
    return [in_this_source(each, path) for each in wanted] + [{dotted(path): each} for each in _as(value, alternatives)]


def _as(value: Any, alternatives: Sequence[Expected]) -> list[Any]:
    """The value in the types that it may have been meant in."""
    kinds = {each.type for each in alternatives}
    meant: list[Any] = [None] if value is False and types.NoneType in kinds else []
    if isinstance(value, int | float) and not isinstance(value, bool) and str in kinds:
        meant.append(str(value))
    if isinstance(value, str) and (number := _number(value)) is not None:
        meant.append(number)
    return meant + (_lists(value, alternatives) if any(is_list(each) for each in alternatives) else [])


def _number(text: str) -> int | float | None:
    """`1,000`, `1_000`, `10k` or `3 epochs` as a number."""
    match = re.fullmatch(r"\s*([0-9][0-9,_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([kKmM]?)(?: ?[a-zA-Z]{3,})?\s*", text)
    if not match:
        return None
    number = float(match[1].replace(",", "").replace("_", "")) * _UNITS[match[2].lower()]
    return int(number) if number.is_integer() else number


def _lists(value: Any, alternatives: Sequence[Expected]) -> list[Any]:
    """What stands alone, or with names as keys, as a list."""
    if isinstance(value, str):
        return [[part.strip() for part in value.split(",") if part.strip()]]
    if not isinstance(value, dict):
        return [[value]]
    items = [item for each in alternatives for item in items_of(each)]
    fields = {name for item in items if is_model(item) for name in item.type.model_fields}
    named = [{"name": name, **(inner if isinstance(inner, dict) else {"path": inner})} for name, inner in value.items()]
    return [[value], named] if value.keys() & fields else [named]


def _factor(path: Path, value: list[Any]) -> str:
    """How a study's factor is written, where a list stands in the place of its levels."""
    if len(path) == 2:
        return f"give the factor a name, as in factors.NAME: {{{path[1]}: {shown(value)}}}; "
    return (
        f"a list is short for the levels of one field alone, so name them: {dotted(path[:2])}.LEVEL: {{FIELD: VALUE}}; "
    )


def _hint(model: type[BaseModel], path: Path, value: Any, alternatives: Sequence[Expected]) -> str:
    """A way out that cannot be told as settings."""
    if path[:1] == ("space",) and len(path) == 2:
        return _distribution(str(path[1]), value)
    if path[:1] == ("factors",) and isinstance(value, list):
        return _factor(path, value)
    if value is None and path == ("adapter",):
        return "leave the key out for LoRA, or write adapter.method: full to train every weight; "
    if value in (None, True) and any(is_model(each) for each in alternatives) and _has_default(model, path):
        return "" if value is True and _is_off(model, path) else "leave the key out for the defaults; "
    if isinstance(value, str) and (whole := with_what_it_needs(alternatives, value)):
        return f"{value} needs more: write {whole}; "
    choices = [str(choice) for each in alternatives for choice in choices_of(each)]
    if isinstance(value, str) and (near := difflib.get_close_matches(value, choices, n=1)):
        return f"did you mean {near[0]!r}? "
    return ""


def _has_default(model: type[BaseModel], path: Path) -> bool:
    parents = [each.type for each in at(model, path[:-1]) if is_model(each)]
    return any(path[-1] in each.model_fields and not each.model_fields[path[-1]].is_required() for each in parents)


def _is_off(model: type[BaseModel], path: Path) -> bool:
    """Whether a field that is left out means nothing, and no defaults."""
    parents = [each.type for each in at(model, path[:-1]) if is_model(each)]
    return any(path[-1] in each.model_fields and each.model_fields[path[-1]].default is None for each in parents)


def _distribution(path: str, value: Any) -> str:
    """How a search over one field is written."""
    if isinstance(value, list) and value:
        return f"write {shown({'choice': value})}; "
    if not isinstance(value, dict):
        return f"a fixed value stands under overrides, as {shown({path: value})}; "
    told = {as_word(key): inner for key, inner in value.items()}
    if isinstance(told.get("values"), list):
        return f"write {shown({'choice': told['values']})}; "
    low, high = told.get("min", told.get("low")), told.get("max", told.get("high"))
    if low is not None and high is not None:
        log = "log" in as_word(told.get("distribution", told.get("type", "")))
        return f"write {shown({'loguniform' if log else 'uniform': [low, high]})}; "
    if any(isinstance(inner, dict) for inner in value.values()):
        return f"write paths with dots, such as {path}.{next(iter(value))}; "
    return ""
