"""What a model must reach before it gets an alias."""

from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from didact.spec.base import Spec

_METRIC = "eval/"
_SHARES = ("accuracy", "win_rate", "unread")
"""Ends of the names of shares, which lie between 0 and 1."""


class GateSpec(Spec):
    """A gate of several kinds of checks; each one becomes a line of the verdict, and what is not measured fails."""

    model_config = ConfigDict(json_schema_extra={"patternProperties": {f"^{_METRIC}": {"type": "number"}}})

    least: dict[str, float] = Field(default_factory=dict)
    """Least improvement over the base per metric, as a figure without its interval; for losses the least fall."""
    gain: dict[str, float] = Field(default_factory=dict)
    """The target: metric of a task, such as `eval/gsm8k/accuracy: 0`, whose gain over the base must be shown: the whole
    paired interval lies above this number."""
    no_worse: float | None = Field(default=None, gt=0)
    """Margin: on no task with questions may the paired interval against the champion (the base, as long as there is no
    champion) reach further down than this."""
    at_least: dict[str, float] = Field(default_factory=dict)
    """Bounds of the adapter's own figures, such as those of a safety set; of losses and the like the most allowed. What
    counts is the figure; its interval stands beside it in the verdict."""
    longest: float | None = Field(default=None, gt=0)
    """Answers may be at most so many times as long as the base's, in tokens: who never ends costs time."""
    slower: float | None = Field(default=None, gt=0)
    """An answer may take at most so many times as long as one of the champion (the base, as long as there is none): a
    dozen questions of the evaluation, asked one at a time in turn, at most 32 tokens each; the median of the ratios."""
    contaminated: float | None = Field(default=None, ge=0, le=1)
    """Share of a task's questions that the run's own training rows may hold, on every task with questions. `gain` and
    `no_worse` are judged on the other questions, whether this is set or not."""
    clean: bool = False
    """Training leaves out rows that hold questions of the evaluation (`data.contamination.policy: drop` or `fail`)."""
    same_template: bool = False
    """The template contract is the champion's, so that whoever asks need not ask otherwise."""
    merge_proof: bool = False
    """The adapter merged into its base computes the same as beside it; takes a merge."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, values: Any) -> Any:
        """A metric as a key is one of `least`."""
        short = (
            {name: value for name, value in values.items() if str(name).startswith(_METRIC)}
            if isinstance(values, dict)
            else {}
        )
        if not short:
            return values
        for name, value in short.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name}: found {value!r}; expected a number, the least improvement over the base")
        least = values.get("least") or {}
        if not isinstance(least, dict) or least.keys() & short.keys():
            raise ValueError(f"{next(iter(short))} stands beside least; write each metric once")
        return {**{name: value for name, value in values.items() if name not in short}, "least": {**least, **short}}

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        for field in ("least", "gain", "at_least"):
            for metric, number in getattr(self, field).items():
                if not metric.startswith(_METRIC):
                    raise ValueError(f"{field} names {metric!r}; expected a metric such as {_METRIC}TASK/{metric}")
                if field == "gain" and metric.endswith("loss"):
                    raise ValueError(
                        f"gain names {metric!r}, of which no question has a value; write its least fall as "
                        f"{metric}: {number:g}"
                    )
                if metric.rpartition("/")[2].endswith(_SHARES) and abs(number) > 1:
                    raise ValueError(f"{field}.{metric}: found {number:g}; it is a share, so expected such as 0.5")
        return self

    @property
    def metrics(self) -> frozenset[str]:
        """All that are named."""
        return frozenset((*self.least, *self.gain, *self.at_least))

    @property
    def asks_report(self) -> bool:
        """Whether an evaluation must answer it."""
        limits = (self.no_worse, self.longest, self.contaminated, self.slower)
        return bool(self.metrics) or any(limit is not None for limit in limits)

    @property
    def compares(self) -> bool:
        """Whether the champion is part of what it asks, so that its verdict holds beside that champion only."""
        return self.measures_champion or self.same_template

    @property
    def measures_champion(self) -> bool:
        """Whether the champion must answer the evaluation's questions too."""
        return self.no_worse is not None or self.slower is not None

    @property
    def asks(self) -> bool:
        """Whether anything is asked at all."""
        return self.asks_report or self.clean or self.same_template or self.merge_proof
