"""All mixtures within limits: a polytope in the simplex, and random walks in it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

Vector = npt.NDArray[np.float64]
_SLACK = 1e-9
_THIN = 20
"""Steps of the walk per source and draw."""


@dataclass(frozen=True, eq=False)
class Polytope:
    """Shares w that sum to one, with low <= w <= high and matrix @ w <= bound."""

    low: Vector
    high: Vector
    matrix: Vector
    """Shape (limits, sources)."""
    bound: Vector

    def holds(self, shares: Vector) -> npt.NDArray[np.bool_]:
        """Which of the rows of `shares` (any number, sources) lie inside."""
        inside = np.all((shares >= self.low - _SLACK) & (shares <= self.high + _SLACK), axis=-1)
        return inside & np.all(shares @ self.matrix.T <= self.bound + _SLACK, axis=-1)

    @cached_property
    def center(self) -> Vector | None:
        """The middle of the largest ball inside (Chebyshev centre); None where there is no mixture at all."""
        count = len(self.low)
        limits = np.vstack([np.eye(count), -np.eye(count), self.matrix])
        # The length that each limit's normal has within the plane of the shares.
        norms = np.linalg.norm(limits - limits.mean(axis=1, keepdims=True), axis=1)
        found = linprog(
            [*np.zeros(count), -1.0],
            A_ub=np.column_stack([limits, norms]),
            b_ub=np.concatenate([self.high, -self.low, self.bound]) + _SLACK,
            A_eq=[[*np.ones(count), 0.0]],
            b_eq=[1.0],
            bounds=[(None, None)] * count + [(0, None)],
        )
        return np.clip(found.x[:count], 0, 1) if found.status == 0 else None

    def span(self, source: int, fixed: Vector) -> tuple[float, float]:
        """Least and largest share of a source, when those before it have the shares `fixed`."""
        count = len(self.low)
        bounds: list[tuple[float, float]] = [(share, share) for share in fixed]
        bounds += [(low, high) for low, high in zip(self.low[len(fixed) :], self.high[len(fixed) :], strict=True)]
        ends = []
        for sign in (1.0, -1.0):
            wanted = np.zeros(count)
            wanted[source] = sign
            found = self._solve(wanted, bounds)
            if found is None:  # rounding has left no room
                return self.low[source], self.low[source]
            ends.append(float(found[source]))
        return ends[0], max(ends)

    def _solve(self, wanted: Vector, bounds: list[tuple[float, float]]) -> Any:
        limits = {"A_ub": self.matrix, "b_ub": self.bound + _SLACK} if len(self.matrix) else {}
        found = linprog(wanted, A_eq=np.ones((1, len(self.low))), b_eq=[1.0], bounds=bounds, **limits)
        return found.x if found.status == 0 else None

    def walk(self, rng: np.random.Generator, count: int, log_density: Callable[[Vector], float]) -> Vector:
        """Draws by hit-and-run (Smith 1984) with Metropolis's rule for the density, from the centre.

        Args:
            rng: decides the draws.
            count: of draws, far enough apart to be nearly independent.
            log_density: of one mixture, up to a constant.
        """
        center = self.center
        assert center is not None, "limits were checked to leave a mixture"
        at, free = center, np.flatnonzero(self.high - self.low > _SLACK)
        here, drawn = log_density(at), []
        for step in range(1, count * _THIN * len(free) + 1):
            direction = np.zeros(len(at))
            direction[free] = rng.normal(size=len(free))
            direction[free] -= direction[free].mean()
            first, last = self._chord(at, direction)
            there = at + direction * rng.uniform(first, last)
            density = log_density(there)
            if np.log(rng.uniform()) < density - here:
                at, here = there, density
            if step % (_THIN * len(free)) == 0:
                drawn.append(at)
        return np.array(drawn) if drawn else np.tile(center, (count, 1))

    def _chord(self, at: Vector, direction: Vector) -> tuple[float, float]:
        """How far the mixture can move along a direction, backwards and forwards."""
        slopes = np.concatenate([direction, -direction, self.matrix @ direction])
        room = np.concatenate([self.high - at, at - self.low, self.bound - self.matrix @ at]).clip(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = room / slopes
        ahead, behind = reach[slopes > _SLACK], reach[slopes < -_SLACK]
        return float(behind.max(initial=-1.0)), float(ahead.min(initial=1.0))
