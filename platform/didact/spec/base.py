"""What all specs share: frozen, strict about unknown keys, and errors that name file, field, found and expected."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from didact.errors import SpecError


class Spec(BaseModel):
    """A frozen piece of a recipe. Unknown keys are refused; the docstring under each field is its documentation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """YAML's `yes` or `true` in place of a number is a mistake, though Python counts it as 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and not _accepts_bool(field.annotation):
                raise ValueError(f"{name} is {value}; expected a number or a word")
        return values


def _accepts_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_accepts_bool(each) for each in getattr(annotation, "__args__", ()))


def validate(spec_type: type[Spec], values: dict[str, Any], origin: str) -> Any:
    """Build `spec_type` from plain values.

    Args:
        spec_type: the spec class.
        values: plain data, as read from YAML or JSON.
        origin: the file (or other origin) named in errors.

    Raises:
        SpecError: one line per problem: field, what was found, what was expected.
    """
    try:
        return spec_type.model_validate(values)
    except ValidationError as error:
        lines = [_explain(spec_type, detail) for detail in error.errors()]
        raise SpecError(f"{origin} cannot be used:\n" + "\n".join(f"  - {line}" for line in lines)) from None


def _explain(spec_type: type[Spec], detail: Any) -> str:
    location = [str(part) for part in detail["loc"]]
    field = ".".join(location) or "(whole file)"
    if detail["type"] == "extra_forbidden":
        known = _known_fields(spec_type, detail["loc"][:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{field}: unknown key; {hint}"
    if detail["type"] == "value_error":
        return f"{field}: {detail['ctx']['error']}"
    if detail["type"] == "missing":
        return f"{field}: missing; this key is required"
    return f"{field}: found {detail['input']!r}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _known_fields(spec_type: Any, location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields at `location`, walking nested specs, lists, dicts and tagged unions."""
    current: list[Any] = [spec_type]
    for part in location:
        nested = [candidate for spec in current for candidate in _step(spec, part)]
        current = nested or [spec for spec in current if _has_tag(spec, part)] or current
    return sorted({name for spec in current for name in spec.model_fields})


def _step(spec: Any, part: int | str) -> list[Any]:
    if isinstance(part, int):
        return []
    if part in spec.model_fields:
        return _specs_in(spec.model_fields[part].annotation)
    return []  # the tag of a union, or a key that is no field


def _has_tag(spec: Any, part: int | str) -> bool:
    return any(part in get_args(field.annotation) for field in spec.model_fields.values())


def _specs_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _specs_in(argument)]
