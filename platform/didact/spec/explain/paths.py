"""The path in the data at which an error of pydantic is, and what else would be wrong."""

import itertools
import re
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, Tag, ValidationError

from didact.spec.explain.schema import Expected, Path, at, expected_in, is_model, value_at
from didact.spec.explain.where import plain


@dataclass(frozen=True)
class Found:
    """An error at a path of the data."""

    kind: str
    """pydantic's name of the error."""
    path: Path
    alternatives: tuple[Expected, ...]
    """What may stand there."""
    message: str
    """The text of an error that our own validators raised."""


def with_paths(model: type[BaseModel], values: Any, errors: list[Any]) -> list[Found]:
    """The errors with paths of the data instead of pydantic's own, which name the types it tried.

    Args:
        model: what the data should be.
        values: the data.
        errors: of `ValidationError.errors()`.
    """
    return [_with_path(model, values, error) for error in errors]


def _with_path(model: type[BaseModel], values: Any, error: Any) -> Found:
    path: Path = ()
    current = [Expected(model)]
    for number, part in enumerate(error["loc"]):
        if len(current) > 1 and (tagged := [each for each in current if _has_tag(each, part)]):
            current = tagged
            continue
        here, last = value_at(values, path), number + 1 == len(error["loc"])
        if last and part == "[key]":  # pydantic's word for the key that the path ends with
            message = str(error.get("ctx", {}).get("error", "")) or f"found {path[-1]!r} as a key; write it in quotes"
            return Found("value_error", path, (), message)
        inner = at(model, (*path, part), values)
        if inner or (isinstance(here, dict) and part in here) or (last and error["type"] == "missing"):
            path, current = (*path, part), inner
        # Anything else is one of the types that pydantic tried for a value of several.
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        key = error["ctx"]["discriminator"].strip("'")
        kind = "missing" if value_at(values, (*path, key)) is None else error["type"]
        return Found(kind, (*path, key), _tags(current, key), "")
    return Found(error["type"], path, tuple(current), str(error.get("ctx", {}).get("error", "")))


def _has_tag(expected: Expected, part: Any) -> bool:
    """Whether pydantic calls this model of a union `part`: by its own tag, or by a field with one possible value."""
    if any(isinstance(limit, Tag) and limit.tag == part for limit in expected.limits):
        return True
    return is_model(expected) and any(
        (part,) == get_args(field.annotation) for field in expected.type.model_fields.values()
    )


def _tags(alternatives: list[Expected], key: str) -> tuple[Expected, ...]:
    models = (each.type for each in alternatives if is_model(each))
    return tuple(each for model in models for each in expected_in(model.model_fields[key]))


def in_this_source(wanted: dict[str, Any], path: Path) -> dict[str, Any]:
    """Settings of a source, found inside one of them, are written to that one."""
    if path[:2] != ("data", "sources") or len(path) < 3:
        return wanted
    return {re.sub(r"^data\.sources\.0\b", f"data.sources.{path[2]}", each): value for each, value in wanted.items()}


def with_settings(values: Any, wanted: dict[str, Any]) -> Any:
    """The data with settings written into it, whatever stands in their way."""
    values = plain(values) if isinstance(values, dict) else {}
    for path, value in wanted.items():
        keys = path.split(".")
        target, last = values, keys[-1]
        for part, following in itertools.pairwise(keys):
            target = _opened(target, part, [] if following.isdigit() else {})
        if isinstance(target, list):
            target[int(last) :] = [value]
        else:
            target[last] = value
    return values


def _opened(target: Any, part: str, empty: Any) -> Any:
    """The mapping or list at a key or index, made where there is none."""
    if isinstance(target, list):
        target += [{} for _ in range(int(part) + 1 - len(target))]
        if not isinstance(target[int(part)], dict):
            target[int(part)] = {}
        return target[int(part)]
    if not isinstance(target.get(part), dict | list) or isinstance(target[part], list) != isinstance(empty, list):
        target[part] = empty
    return target[part]


def refused(model: type[BaseModel], values: Any, wanted: dict[str, Any]) -> list[Found]:
    """What is wrong at or below the settings `wanted`, once they are written into the data."""
    trial = with_settings(values, wanted)
    try:
        model.model_validate(trial)
    except ValidationError as error:
        paths = [tuple(target.split(".")) for target in wanted]
        found = with_paths(model, trial, error.errors())
        return [each for each in found if any(tuple(map(str, each.path))[: len(path)] == path for path in paths)]
    return []
