"""What a specification may hold, read from its types: fields by path, and what a field expects in plain words."""

import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Path = tuple[str | int, ...]
_KINDS = {
    Any: ("a value", "values"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
}
_MOST_KEYS = 8


@dataclass(frozen=True, slots=True)
class Expected:
    """One of the types that a value may have, with its limits."""

    type: Any
    """A model, a plain type such as `int`, or a generic one such as `tuple[str, ...]`."""
    limits: tuple[Any, ...] = ()
    """What pydantic and annotated_types say about it."""


@dataclass(frozen=True, slots=True)
class Says:
    """Annotation of a type: what is expected, in words, instead of those made from its limits."""

    says: str


def expected_in(annotation: Any, limits: tuple[Any, ...] = ()) -> list[Expected]:
    """The alternatives of a type: unions taken apart, names and annotations resolved."""
    if isinstance(annotation, FieldInfo):
        return expected_in(annotation.annotation, (*limits, *annotation.metadata))
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        for each in more:
            limits = (*limits, *(each.metadata if isinstance(each, FieldInfo) else (each,)))
        return expected_in(inner, limits)
    if get_origin(annotation) in (Union, types.UnionType):
        return [found for each in get_args(annotation) for found in expected_in(each, limits)]
    return [Expected(annotation, limits)]


def is_model(expected: Expected) -> bool:
    """Whether a value of this type is a mapping with fields of its own."""
    return isinstance(expected.type, type) and issubclass(expected.type, BaseModel)


def items_of(expected: Expected) -> list[Expected]:
    """What the items of a list, or the values of a mapping with free keys, may be."""
    arguments = [each for each in get_args(expected.type) if each is not Ellipsis]
    if get_origin(expected.type) is dict:
        return expected_in(arguments[1])
    if get_origin(expected.type) in (tuple, list, set, frozenset):
        return [found for each in dict.fromkeys(arguments) for found in expected_in(each)]
    return []


def is_list(expected: Expected) -> bool:
    """Whether a value of this type is a list."""
    return get_origin(expected.type) in (tuple, list, set, frozenset)


def is_mapping(expected: Expected) -> bool:
    """Whether a value of this type is a mapping with free keys."""
    return get_origin(expected.type) is dict or expected.type is dict


def narrowed(alternatives: list[Expected], value: Any) -> list[Expected]:
    """The models of a union that `value` can mean: those that its own words (`method: lora`) select."""
    if not isinstance(value, dict):
        return alternatives
    chosen = [each for each in alternatives if is_model(each) and _is_meant(each.type, value)]
    return chosen or alternatives


def _is_meant(model: type[BaseModel], value: dict[Any, Any]) -> bool:
    fixed = {name: field for name, field in model.model_fields.items() if _is_tag(field)}
    if fixed:
        return all(value.get(name, field.default) in get_args(field.annotation) for name, field in fixed.items())
    return bool(value.keys() & model.model_fields.keys())


def _is_tag(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def at(model: type[BaseModel], path: Path, values: Any = None) -> list[Expected]:
    """What may stand at `path`: one type, several, or none where the model has no such path.

    Args:
        model: the whole specification.
        path: keys and indices; any index stands for the items of a list.
        values: the data, which decides between the models of a union; left out, all of them count.
    """
    current = [Expected(model)]
    for part in path:
        current = [found for each in narrowed(current, values) for found in _step(each, part)]
        values = value_at(values, (part,))
    return current


def _step(expected: Expected, part: str | int) -> list[Expected]:
    if is_model(expected):
        field = expected.type.model_fields.get(part)
        return expected_in(field) if field else []
    if is_mapping(expected) or (is_list(expected) and (isinstance(part, int) or part.isdigit())):
        return items_of(expected)
    return []


def value_at(values: Any, path: Path) -> Any:
    """The value at `path` of plain data, None where there is none."""
    for part in path:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list | tuple) and str(part).isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return None
    return values


def keys_at(model: type[BaseModel], path: Path, values: Any) -> list[str]:
    """The fields that the mapping at `path` may have."""
    models = [each for each in narrowed(at(model, path, values), value_at(values, path)) if is_model(each)]
    return sorted({name for each in models for name in each.type.model_fields})


def all_fields(model: type[BaseModel], values: Any = None) -> dict[str, list[Expected]]:
    """Every field below `model` by its dotted path; items of a list stand under 0, free keys are left out."""
    found: dict[str, list[Expected]] = {}
    for path, expected in _walk(Expected(model), (), values):
        found.setdefault(path, []).extend(expected)
    return found


def _walk(expected: Expected, path: tuple[str, ...], values: Any) -> Iterator[tuple[str, list[Expected]]]:
    if is_list(expected):
        for item in items_of(expected):
            yield from _walk(item, (*path, "0"), value_at(values, (0,)))
    if not is_model(expected):
        return
    for name, field in expected.type.model_fields.items():
        inner, value = expected_in(field), value_at(values, (name,))
        yield ".".join((*path, name)), inner
        for each in narrowed(inner, value):
            yield from _walk(each, (*path, name), value)


def describe(alternatives: Sequence[Expected]) -> str:
    """What is expected, as the end of a sentence: `a whole number from 1 to 1024`; `another value` if nothing tells."""
    if not alternatives:
        return "another value"
    if any(each.type is Any for each in alternatives):
        return "a value"
    models = [each for each in alternatives if is_model(each)]
    values = [value for each in alternatives for value in choices_of(each)]
    others = [each for each in alternatives if each not in models and not choices_of(each)]
    words = [repr(value) if isinstance(value, str) else str(value) for value in dict.fromkeys(values)]
    words += [_describe_plain(each) for each in others if each.type is not types.NoneType]
    words += [_describe_models(models)] if models else []
    words += ["null"] if any(each.type is types.NoneType for each in others) else []
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def with_what_it_needs(alternatives: Sequence[Expected], name: str) -> str:
    """The mapping that is meant by a name alone, where one of that name has keys that must be given; else empty."""
    for each in alternatives:
        fields = each.type.model_fields if is_model(each) else {}
        tag = next(
            (key for key, field in fields.items() if _is_tag(field) and name in get_args(field.annotation)), None
        )
        needed = [key for key, field in fields.items() if field.is_required() and key != tag]
        if tag and needed:
            return f"{{{', '.join([f'{tag}: {name}', *(f'{key}: ...' for key in needed)])}}}"
    return ""


def choices_of(expected: Expected) -> tuple[Any, ...]:
    """The values of a type that has only some."""
    if isinstance(expected.type, type) and issubclass(expected.type, Enum):
        return tuple(each.value for each in expected.type)
    return get_args(expected.type) if get_origin(expected.type) is Literal else ()


def _describe_plain(expected: Expected) -> str:
    if says := _limit(expected, "says"):
        return str(says)
    if is_mapping(expected):
        items = items_of(expected)
        return f"a mapping whose values are {_plural(items)}" if items and items[0].type is not Any else "a mapping"
    if is_list(expected):
        fixed = get_origin(expected.type) is tuple and Ellipsis not in get_args(expected.type)
        size = len(get_args(expected.type)) if fixed else 0
        number = f"{size} " if size else ""
        number_of = _limit(expected, "min_length")
        least = f", at least {'one' if number_of == 1 else number_of}" if number_of else ""
        return f"a list of {number}{_plural(items_of(expected))}{least}"
    kind = _KINDS.get(expected.type, (str(getattr(expected.type, "__name__", expected.type)), ""))[0]
    return kind + _range(expected) + _shape(expected)


def _describe_models(models: list[Expected]) -> str:
    keys = [name for each in models for name in each.type.model_fields]
    needed = [[name for name, field in each.type.model_fields.items() if field.is_required()] for each in models]
    if len(models) > 1 and all(len(each) == 1 for each in needed):
        return f"a mapping with one of the keys {', '.join(name for each in needed for name in each)}"
    if len(models) > 1:
        tags = [name for name, field in models[0].type.model_fields.items() if _is_tag(field)]
        return f"a mapping with {tags[0]} and its options" if tags else "a mapping"
    more = ", ..." if len(keys) > _MOST_KEYS else ""
    return f"a mapping with {', '.join(keys[:_MOST_KEYS])}{more}"


def _plural(items: list[Expected]) -> str:
    if len(items) == 1 and items[0].type in _KINDS:
        return _KINDS[items[0].type][1] + _range(items[0])
    if items and all(is_model(each) for each in items):
        return "mappings"
    return f"{describe(items)}" if items else "values"


def _range(expected: Expected) -> str:
    lower, above = _limit(expected, "ge"), _limit(expected, "gt")
    upper, below = _limit(expected, "le"), _limit(expected, "lt")
    start = f"from {lower:g}" if lower is not None else f"above {above:g}" if above is not None else ""
    end = f"to {upper:g}" if upper is not None else f"below {below:g}" if below is not None else ""
    if lower is not None and below is not None:
        return f" from {lower:g} to below {below:g}"
    if lower is not None and not end:
        return f" of at least {lower:g}"
    joint = " and " if start and end and (above is not None or below is not None) else " "
    return f" {start}{joint}{end}".rstrip() if start or end else ""


def _shape(expected: Expected) -> str:
    pattern = _limit(expected, "pattern")
    if not pattern:
        return " that is not empty" if _limit(expected, "min_length") else ""
    longest = re.search(r"\{0,(\d+)\}", str(pattern))
    marks = ", '_', '.' and '-', beginning with a letter or digit" if "." in str(pattern) else " and '_'"
    return f" of letters, digits{marks}" + (f", at most {int(longest[1]) + 1}" if longest else "")


def _limit(expected: Expected, name: str) -> Any:
    return next((getattr(each, name) for each in expected.limits if getattr(each, name, None) is not None), None)
