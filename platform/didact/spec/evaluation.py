"""What is measured after training, and what a model must reach before it is a candidate."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from didact.spec.base import Spec
from didact.spec.model import ModelSpec


class HeldOutTask(Spec):
    """Mean loss per supervised token on the rows that the recipe's sources set aside."""

    task: Literal["held_out"]


class ReasoningGymTask(Spec):
    """Exact answers on freshly generated `reasoning-gym` items, never items of the training seed."""

    task: Literal["reasoning_gym"]
    name: str
    """The generator, such as `chain_sum`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The generator's settings; `seed` defaults to 1_000_003 so that it differs from training's."""
    num_items: int = Field(default=64, ge=1)
    """How many questions."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest answer, in tokens."""


class Gsm8kTask(Spec):
    """Exact final numbers on GSM8K items (JSON lines with `question` and `answer`, the number after `####`)."""

    task: Literal["gsm8k"]
    path: str
    """The JSON lines file, or `hf:openai/gsm8k:main`."""
    num_items: int = Field(default=50, ge=1)
    """How many questions, drawn at random with seed 0."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens."""


TaskSpec = Annotated[HeldOutTask | ReasoningGymTask | Gsm8kTask, Field(discriminator="task")]


class EvaluationSpec(Spec):
    """Tasks run on the base and on the adapter, side by side."""

    tasks: tuple[TaskSpec, ...] = (HeldOutTask(task="held_out"),)
    """What to measure."""
    batch_size: int = Field(default=16, ge=1)
    """Prompts generated together."""

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        names = [getattr(task, "name", task.task) for task in tasks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"two tasks report as {twice[0]!r}; keep one, or put the other into an evaluation of its own"
            )
        return tasks


class RegisterSpec(Spec):
    """How the adapter enters the registry."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Registered model; also the name by which the serving API offers the adapter."""
    alias: Literal["candidate", "champion"] | None = "candidate"
    """Alias set on the new version when the gate lets it pass."""
    gate: dict[str, float] = Field(default_factory=dict)
    """Least improvement over the base per metric, such as `eval/chain_sum/accuracy: 0.1`; for losses the least fall."""


class EvaluateSpec(Spec):
    """A stand-alone evaluation: `didact evaluate FILE`."""

    model: ModelSpec = ModelSpec()
    """The base model; left out, the one that the adapter was trained on."""
    adapter: str | None = None
    """An adapter folder, a run folder, or a registered `name`, `name@alias`, `name:version`; none: base alone."""
    evaluation: EvaluationSpec
    """What to measure. `held_out` needs a run folder as `adapter`, whose recipe names the rows."""
