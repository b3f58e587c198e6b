"""Tasks that evaluation knows: one class a benchmark, each with its name under `task`."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from didact.spec.base import Spec


class QuestionTask(Spec):
    """What tasks that ask questions have in common."""

    num_items: int | None = Field(default=None, ge=1)
    """At most so many questions, drawn at random with seed 0; left out, all of them."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens."""
    prompt: Literal["direct", "answer_only", "step_by_step"] = "direct"
    """`direct` is the question as it stands, `answer_only` asks for no explanation, `step_by_step` for reasoning before
    the answer, in the question's language. Multiple choice asks for no explanation where it does not ask for reasoning.
    """
    few_shot: int = Field(default=0, ge=0)
    """Worked examples before each question, as turns of the conversation; for tasks that have examples."""
    samples: int = Field(default=1, ge=1, le=10_000)
    """Answers drawn for each question; the most frequent one counts (self-consistency), and pass@k is measured."""
    temperature: float | None = Field(default=None, ge=0)
    """0 is greedy; left out, 0 for one sample and 0.7 for several."""

    @property
    def drawn_at(self) -> float:
        """The temperature that answers are drawn at."""
        return self.temperature if self.temperature is not None else 0.0 if self.samples == 1 else 0.7

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples: {self.samples} at temperature: 0 are all the same; raise it or ask for one")
        return self


class TextQuestionTask(QuestionTask):
    """What tasks have in common whose answers are read in a text."""

    faithfulness: bool = False
    """After `step_by_step`, whether the answer moves when the reasoning is cut, or gets a mistake: about 7 more
    answers for each question."""

    @model_validator(mode="after")
    def _reasoning_is_there(self) -> Self:
        if self.faithfulness and (self.prompt != "step_by_step" or self.samples > 1):
            raise ValueError("faithfulness is about one answer's reasoning; set prompt: step_by_step and samples: 1")
        return self


class HeldOutTask(Spec):
    """Mean loss per supervised token on the rows that the recipe's sources set aside."""

    task: Literal["held_out"]


class PerplexityTask(Spec):
    """How well a model foretells plain text: perplexity per token and per byte.

    Documents are cut into windows. Each window holds text that counts, and before it text of the same document that is
    only read; text counts once. Only figures per byte compare models of different tokenizers.
    """

    task: Literal["perplexity"]
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Its name in figures; left out, `perplexity`."""
    path: str = Field(min_length=1)
    """Text files (`corpus/*.txt`; `<|endoftext|>` parts documents), data files with a field of text, or `hf:`."""
    field: str = "text"
    """The field that holds the text, in data files."""
    split: str = "test"
    """Of a Hugging Face dataset, or of a folder that holds a folder for each split."""
    num_items: int | None = Field(default=None, ge=1)
    """At most so many windows, drawn at random with seed 0; left out, all of them."""
    window: int = Field(default=2048, ge=16)
    """Longest window, in bytes of UTF-8: no tokenizer makes more tokens of it."""
    stride: int = Field(default=1024, ge=8)
    """Bytes that count in each window after a document's first; the rest is context."""
    max_bad_rows_share: float = Field(default=0.01, ge=0, le=1)
    """Documents that cannot be used are left out and named; a larger share of them stops the evaluation."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stride > self.window:
            raise ValueError(f"stride {self.stride} is larger than window {self.window}; text between would not count")
        return self


class ReasoningGymTask(TextQuestionTask):
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


class Gsm8kTask(TextQuestionTask):
    """Exact final numbers on GSM8K items (JSON lines with `question` and `answer`, the number after `####`)."""

    task: Literal["gsm8k"]
    path: str = Field(min_length=1)
    """The JSON lines file, or `hf:openai/gsm8k:main`."""
    examples: str | None = None
    """Where worked examples for `few_shot` are, in the same form, such as GSM8K's training file; of the hub's data set,
    left out, its split `train`."""
    num_items: int = Field(default=50, ge=1)
    """How many questions, drawn at random with seed 0."""
