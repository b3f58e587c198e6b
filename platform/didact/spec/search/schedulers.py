"""Which trials of a search are stopped early."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from didact.spec.base import Spec

_DEFAULT_GRACE_STEPS = 10


class EarlyStoppingSpec(Spec):
    """What all rules have: the time that every trial gets."""

    grace_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps that every trial gets before it may be stopped; default 10. Give this or `grace_tokens`."""
    grace_tokens: int | None = Field(default=None, ge=1)
    """Tokens that every trial learns before it may be stopped: time is then counted in tokens, which is fair to trials
    of different batches or mixtures."""

    @model_validator(mode="before")
    @classmethod
    def _in_steps(cls, values: Any) -> Any:
        if not isinstance(values, dict) or any(
            values.get(each) is not None for each in ("grace_steps", "grace_tokens")
        ):
            return values
        return {**values, "grace_steps": _DEFAULT_GRACE_STEPS}

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if self.grace_steps is not None and self.grace_tokens is not None:
            raise ValueError("give grace_steps or grace_tokens, one of both")
        return self

    @property
    def grace(self) -> int:
        """Time that every trial gets, in `unit`."""
        return self.grace_tokens or self.grace_steps or _DEFAULT_GRACE_STEPS

    @property
    def unit(self) -> Literal["step", "tokens"]:
        """What time is counted in."""
        return "tokens" if self.grace_tokens else "step"


class HalvingSpec(EarlyStoppingSpec):
    """Asynchronous successive halving: trials that lag at a rung are stopped (ASHA; Li et al., 2018)."""

    rule: Literal["halving"] = "halving"
    """Written where another rule could be meant."""
    reduction_factor: float = Field(default=2.0, gt=1)
    """One of so many trials survives a rung; rungs lie at `grace_steps` times its powers."""
    brackets: int = Field(default=1, ge=1)
    """With more than one it is asynchronous Hyperband: trials take turns in brackets, each with its first rung one
    power later, so that what starts slowly has a chance."""


class MedianSpec(EarlyStoppingSpec):
    """Median stopping: a trial whose best value is worse than the median of the other trials' means up to the same time
    is stopped (Golovin et al., 2017, Vizier)."""

    rule: Literal["median"]
    """`median`."""
    min_trials: int = Field(default=3, ge=1)
    """Other trials that must have come as far before one is stopped."""


class PopulationSpec(Spec):
    """Population based training: at each interval the worst trials end, and copies of the best go on in their place
    with learning rate, dropout and mixture a little changed (Jaderberg et al., 2017)."""

    rule: Literal["population"]
    """`population`."""
    interval_steps: int = Field(ge=1)
    """Optimizer steps between comparisons. Each costs every trial a start of its workers."""
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    """Share of the trials that is replaced each time, by copies of as many of the best."""
    resample_probability: float = Field(default=0.25, ge=0, le=1)
    """With this probability a copy draws a setting anew; else it goes on with the next level, or a little more or
    less."""
    factors: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.2, 0.8)
    """What a number is multiplied by, one of both; shares of a mixture as well, which then add up to one again."""

    @property
    def unit(self) -> Literal["step"]:
        """What time is counted in."""
        return "step"


def _halving_unless_stated(value: Any) -> Any:
    return {"rule": "halving", **value} if isinstance(value, dict) else value


Scheduler = Annotated[
    Annotated[HalvingSpec | MedianSpec | PopulationSpec, Field(discriminator="rule")],
    BeforeValidator(_halving_unless_stated),
]
