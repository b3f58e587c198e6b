"""Who judges answers, who they are compared with, and how a judge is asked."""

from typing import Literal, Self

from pydantic import Field, model_validator

from didact.spec.base import Spec
from didact.spec.evaluation.endpoint import EndpointSpec


class AnswererSpec(Spec):
    """A model that answers beside those that are evaluated: an endpoint, or a base of this machine with or without an
    adapter."""

    endpoint: EndpointSpec | None = None
    """A model behind an address."""
    base: str | None = None
    """A base as in `model.base`: bundled name, folder or hub id."""
    adapter: str | None = None
    """An adapter folder, a run folder, or a registered `name`, `name@alias`, `name:version`; its base is known."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.endpoint is not None and (self.base or self.adapter):
            raise ValueError("found an endpoint and a model of this machine; expected one of them")
        if self.endpoint is None and not self.base and not self.adapter:
            raise ValueError("found nothing; expected endpoint, base or adapter")
        return self


class JudgingSpec(Spec):
    """How answers are judged."""

    passes: int = Field(default=1, ge=1, le=5)
    """How often each judgement is asked for; from 2 on, agreement of the judge with itself is reported."""
    swap: bool = True
    """Compare each pair in both orders; a verdict that turns with the order is a tie."""
    language: Literal["auto", "en", "zh"] = "auto"
    """Of what the judge is told; `auto` takes the question's."""
    criteria: str | None = None
    """JSON lines with `class` and `prompt`: what counts in each class, in place of this program's own words."""
    max_new_tokens: int = Field(default=512, ge=8)
    """Longest judgement, in tokens."""
