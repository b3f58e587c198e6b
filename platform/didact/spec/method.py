"""What every method of training states about itself."""

from typing import Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from didact.spec.base import Spec


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
