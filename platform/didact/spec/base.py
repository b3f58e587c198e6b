"""What all specs share: frozen, strict about unknown keys, and errors that name file, field, found and expected."""

from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import override

from didact.display import Shown
from didact.errors import SpecError
from didact.spec.explain import complaints, plain

if TYPE_CHECKING:
    from rich.console import RenderableType


class Spec(BaseModel, Shown):
    """A frozen piece of a recipe. Unknown keys are refused; the docstring under each field is its documentation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )

    @override
    def __rich__(self) -> "RenderableType":
        """What is set, as a file says it; all else is left at its default."""
        from rich.text import Text

        values = self.model_dump(mode="json", exclude_unset=True)
        return Text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip("\n"))

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """YAML's `yes` or `true` in place of a number is a mistake, though Python counts it as 1."""
        wrong = [
            InitErrorDetails(type=PydanticCustomError("truth", "true or false"), loc=(name,), input=value)
            for name, value in (values.items() if isinstance(values, dict) else ())
            if isinstance(value, bool) and name in cls.model_fields
            if not _accepts_bool(cls.model_fields[name].annotation)
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
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
        SpecError: one line per mistake: line, field, what was found, what was expected or is to be written.
    """
    try:
        return spec_type.model_validate(plain(values))
    except ValidationError as error:
        lines = complaints(spec_type, values, error.errors())
        raise SpecError(f"{origin} cannot be used:\n" + "\n".join(f"  - {line}" for line in lines)) from None
