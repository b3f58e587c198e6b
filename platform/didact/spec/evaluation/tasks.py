"""Tasks that evaluation knows: one class a benchmark, each with its name under `task`."""

from typing import Any, Literal

from pydantic import Field

from didact.spec.base import Spec


class QuestionTask(Spec):
    """What tasks that ask questions have in common."""

    num_items: int | None = Field(default=None, ge=1)
    """At most so many questions, drawn at random with seed 0; left out, all of them."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens."""
    prompt: Literal["direct", "step_by_step"] = "direct"
    """`step_by_step` asks for the reasoning before the answer."""
    few_shot: int = Field(default=0, ge=0)
    """Worked examples before each question, as turns of the conversation; for tasks that have examples."""
    samples: int = Field(default=1, ge=1)
    """Answers drawn for each question; the most frequent one counts (self-consistency), and pass@k is measured."""
    temperature: float | None = Field(default=None, ge=0)
    """0 is greedy; left out, 0 for one sample and 0.7 for several."""


class HeldOutTask(Spec):
    """Mean loss per supervised token on the rows that the recipe's sources set aside."""

    task: Literal["held_out"]


class ReasoningGymTask(QuestionTask):
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


class Gsm8kTask(QuestionTask):
    """Exact final numbers on GSM8K items (JSON lines with `question` and `answer`, the number after `####`)."""

    task: Literal["gsm8k"]
    path: str
    """The JSON lines file, or `hf:openai/gsm8k:main`."""
    num_items: int = Field(default=50, ge=1)
    """How many questions, drawn at random with seed 0."""
