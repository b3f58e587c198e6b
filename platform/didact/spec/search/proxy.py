"""What ranks mixtures before any of them is trained."""

from typing import Literal

from pydantic import Field

from didact.spec.base import Spec


class ProxySpec(Spec):
    """Short runs, one for each source; weighted sums of what they learned stand in for mixtures (DeMix; Merge to Mix,
    2025). What they rank best is tried first, if they rank the first trials as those turn out."""

    method: Literal["merge"] = "merge"
    """Adapters' updates are added up, each times its source's share."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of each source's run; default: a quarter of a trial's, for what is trained long adds up badly."""
    general: float = Field(default=0.5, ge=0, lt=1)
    """Share of each of these runs that is of the prior mixture; the rest is of its own source."""
    mixes: int = Field(default=200, ge=10)
    """Mixtures that are ranked; each costs the held-out losses once."""
    top: int | None = Field(default=None, ge=1)
    """Trials that take what was ranked best; default: two for each source."""
    calibrate: int = Field(default=4, ge=4)
    """First trials, from good to bad by rank, that the proxy is compared with."""
    at_least: float = Field(default=0.7, ge=0, le=1)
    """Rank correlation with them below which the proxy is not followed."""
