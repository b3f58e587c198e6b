"""What a searcher proposes, and what it sees of earlier trials."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from scipy.stats import qmc
from typing_extensions import override

from didact.tuning.spaces import Space, Values


@dataclass(frozen=True, slots=True)
class Draw:
    """One proposal."""

    index: int
    """Which of the search's proposals, from 0."""
    values: Values
    """Dotted path into the recipe -> value."""
    origin: str
    """How it came about, in words."""
    expected: float | None = None
    """What the searcher expects of the first goal, less being better; None where it has no model."""
    gain: float | None = None
    """By how much it expects the draw to be better than the best so far; None where it has no model."""

    def config(self) -> dict[str, Any]:
        """As Ray Tune hands it on and the journal keeps it."""
        return {"draw": asdict(self)}


@dataclass(frozen=True, slots=True)
class Seen:
    """One earlier trial, as a searcher sees it."""

    draw: Draw
    status: Literal["running", "ended", "failed"]
    losses: tuple[float, ...] | None = None
    """Goals, less being better; None until all were measured."""
    violations: tuple[float, ...] = ()
    """By how much constraints are broken."""
    metrics: dict[str, float] | None = None
    """All metrics at their newest measurement."""


class Proposer(Protocol):
    """Chooses what to try next, from what was seen alone: after a kill the same is proposed again."""

    def propose(self, index: int, seen: Sequence[Seen]) -> Draw:
        """Proposal number `index`, after `seen`."""
        ...


@dataclass(frozen=True)
class RandomProposer(Proposer):
    """Independent draws; grids in full, again and again."""

    space: Space
    seed: int

    @override
    def propose(self, index: int, seen: Sequence[Seen]) -> Draw:
        points = self.space.grid_points()
        values = self.space.draw(np.random.default_rng([self.seed, index]), points[index % len(points)])
        return Draw(index, values, "grid" if len(points) > 1 else "random")


@dataclass(frozen=True)
class QuasiRandomProposer(Proposer):
    """A scrambled Sobol sequence (Owen 1998): draws that fill the space more evenly than independent ones."""

    space: Space
    seed: int

    @override
    def propose(self, index: int, seen: Sequence[Seen]) -> Draw:
        sequence = qmc.Sobol(self.space.num_units, rng=np.random.default_rng(self.seed))
        units = sequence.fast_forward(index).random(1)[0] if index else sequence.random(1)[0]
        return Draw(index, self.space.from_units(units.tolist()), "quasi-random")


@dataclass(frozen=True)
class ListedProposer(Proposer):
    """Draws that are known beforehand."""

    draws: tuple[Draw, ...]

    @override
    def propose(self, index: int, seen: Sequence[Seen]) -> Draw:
        return self.draws[index]
