"""What a study varies: factors, their levels, and the names of both."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_OTHER = re.compile(r"[^A-Za-z0-9_.+-]+")
_BELONGS_TO_THE_STUDY = {
    "name": "a cell is named by its levels",
    "register_as": "didact register makes a version of a cell",
    "evaluation": "write it in the study's own evaluation",
    "training.seed": "write it in the study's own seeds",
}
"""Fields of a recipe that a study sets itself, and what to do instead."""
Level = dict[str, Any]
"""Dotted path into the recipe -> value."""


def _named(value: Any) -> Any:
    """YAML reads `320:` as a number, and `on:` as true."""
    if value is None or isinstance(value, bool):
        raise ValueError(
            f"found {str(value).lower() if value is not None else 'null'} as a name, which YAML makes of words like "
            "on, off, yes, no and null; write it in quotes"
        )
    name = _of_number(value) if isinstance(value, int | float) else value
    if isinstance(name, str) and not _NAME.fullmatch(name):
        raise ValueError(
            f"the name {name[:80]!r} cannot be used; expected 1 to 64 of the letters A to Z, digits, '.', '_', '+', '-'"
        )
    return name


Name = Annotated[str, BeforeValidator(_named)]
"""Of a factor or a level; part of the names of run folders."""


def _levels(value: Any) -> Any:
    """A path with a list of values is short for one level a value."""
    if isinstance(value, Mapping) and len(value) == 1:
        (path, values) = next(iter(value.items()))
        if isinstance(values, list | tuple):
            value = _a_level_a_value(path, values)
    if isinstance(value, Mapping) and len(value) < 2:
        raise ValueError(f"a factor needs at least two levels; found {list(value)}")
    return value


Factor = Annotated[dict[Name, Level], BeforeValidator(_levels)]
"""Level -> what it sets in the recipe."""


def _a_level_a_value(path: Any, values: list[Any] | tuple[Any, ...]) -> dict[str, Level]:
    found: dict[str, Level] = {}
    for each in values:
        if isinstance(each, list | dict):
            raise ValueError(
                f"a level a value needs plain values; for {each}, name the levels: NAME: {{{path}: VALUE}}"
            )
        name = _level_name(each)
        if name in found:
            raise ValueError(f"{path}: {each!r} and {found[name][path]!r} would both be the level {name}")
        found[name] = {path: each}
    return found


def _level_name(value: Any) -> str:
    """`meta-llama/Llama-3.1-8B` becomes `meta-llama-Llama-3.1-8B`; what has no letters to keep must be named."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _of_number(value)
    name = _OTHER.sub("-", str(value)).strip("-")
    if not name or len(name) > 64:
        raise ValueError(f"{value!r} makes no name of a level; name the levels, as NAME: {{PATH: VALUE}}")
    return name


def _of_number(value: float) -> str:
    """Short where that says all of it: two values never have one name."""
    if isinstance(value, int):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def settings_of(level: Level) -> Iterator[str]:
    """The dotted paths of the single fields that a level sets."""
    for path, value in level.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{path}.{inner}" for inner in settings_of({str(key): each for key, each in value.items()}))
        else:
            yield path


def not_to_be_varied(paths: Iterator[str]) -> str | None:
    """Why one of these paths is no study's to set in a recipe; None where all are."""
    for path in paths:
        for field in _BELONGS_TO_THE_STUDY:
            if f"{path}.".startswith(f"{field}."):
                return f"found {path}, which the study sets in every cell; {_BELONGS_TO_THE_STUDY[field]}"
    return None
