"""What ranks mixtures before any of them is trained."""

from typing import Literal, Self

from pydantic import Field, model_validator

from didact.spec.base import Spec


class ProxySpec(Spec):
    """Short runs, one for each source, that tell what mixtures would bring. What they rank best is tried first, if they
    rank the first trials as those turn out."""

    method: Literal["merge", "mixmin"] = "merge"
    """`merge`: adapters' updates are added up, each times its source's share (DeMix; Merge to Mix, 2025). `mixmin`: the
    probabilities that the models give each held-out answer are added up, each times its source's share, and the best
    mixture by that is solved for (MixMin, 2025). It costs the held-out losses once a source, where `merge` costs them
    once a mixture, and is not of plain LoRA alone."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of each source's run; default: a quarter of a trial's, for what is trained long adds up badly."""
    general: float | None = Field(default=None, ge=0, lt=1)
    """Share of each of these runs that is of the prior mixture; the rest is of its own source. Default: 0.5 of `merge`;
    models of `mixmin` are of one source each, so it has none."""
    mixes: int = Field(default=200, ge=10)
    """Mixtures that are ranked; each costs the held-out losses once."""
    top: int | None = Field(default=None, ge=1)
    """Trials that take what was ranked best; default: two for each source."""
    calibrate: int = Field(default=4, ge=4)
    """First trials, from good to bad by rank, that the proxy is compared with."""
    at_least: float = Field(default=0.7, ge=0, le=1)
    """Rank correlation with them below which the proxy is not followed."""

    @property
    def general_share(self) -> float:
        """`general` with its default."""
        return (0.5 if self.method == "merge" else 0.0) if self.general is None else self.general

    @model_validator(mode="after")
    def _of_one_source(self) -> Self:
        if self.method == "mixmin" and self.general:
            raise ValueError(
                f"general is {self.general:g}, and models of method 'mixmin' are of one source each; remove it"
            )
        return self
