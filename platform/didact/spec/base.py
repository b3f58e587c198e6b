"""What all specs share: frozen, strict about unknown keys, and errors that name file, field, found and expected."""

from typing import TYPE_CHECKING, Any, ClassVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
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

        return Text(str(self))

    @override
    def __str__(self) -> str:
        """As `__rich__`; pydantic's own would be one line of all fields."""
        values = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110).rstrip("\n")

    @override
    def __format__(self, format_spec: str) -> str:
        """Inside a message: one line."""
        return format(" ".join(f"{name}={value!r}" for name, value in self.__repr_args__()), format_spec)

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


class MethodSpec(Spec):
    """What every method states about itself, so that impossible recipes are refused before anything is loaded."""

    prepends_positions: ClassVar[bool] = False
    """Trained positions stand before every row: rows cannot be packed."""
    trains_base: ClassVar[bool] = False
    """Weights of the base itself are trained, so it is loaded in float32."""
    no_quantization: ClassVar[dict[int, str]] = {}
    """Bits of a quantized base this method cannot train on, with the reason."""
    no_gradient_checkpointing: ClassVar[str | None] = None
    """Why activations cannot be recomputed; None where they can."""
    no_sharding: ClassVar[dict[str, str]] = {}
    """Values of `training.sharding.strategy` this method cannot train under, with the reason."""
    changeable_dropout: ClassVar[bool] = False
    """`training.changes` can change its dropout on the way."""
    suitable_rate: ClassVar[float] = 2e-4
    """`training.learning_rate` where a recipe states none."""

    # `from` is a word of Python, in which no field can be written as others are.
    __annotations__["from"] = str | None
    locals()["from"] = Field(
        default=None,
        description="The adapter whose weights training begins with, of the same base, method and settings: a run "
        "folder, an adapter folder, or `name`, `name@alias`, `name:version`.",
    )

    @property
    def start(self) -> str | None:
        """The field `from`."""
        found: str | None = getattr(self, "from")
        return found

    @model_serializer(mode="wrap")
    def _without_start(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        # Left out where there is none, so that records of runs from the base stay as they were.
        return {key: value for key, value in values.items() if key != "from" or value is not None}


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
