"""Draws of mixtures: around a prior, within floors, caps and limits on passes, in nested groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import beta

from didact.tuning.spaces.polytope import Polytope, Vector

_SOURCES, _WEIGHT = "data.sources.", ".weight"
_BATCH, _PATIENCE = 512, 4000
"""Most draws at once, and how many are tried before it is asked how many of them were kept."""


def weight_path(source: str) -> str:
    """Where a recipe has a source's weight."""
    return f"{_SOURCES}{source}{_WEIGHT}"


def weighed_source(path: str) -> str | None:
    """The source whose weight lies at a path; None for other paths."""
    is_weight = path.startswith(_SOURCES) and path.endswith(_WEIGHT)
    return path.removeprefix(_SOURCES).removesuffix(_WEIGHT) if is_weight else None


@dataclass(frozen=True, eq=False)
class Mixtures:
    """All mixtures of some sources that a search may draw, with their density.

    Shares above the floors are Dirichlet: of groups first, then within each. Draws that break a cap or a limit on
    passes are rejected, which is exact; where fewer than one in a thousand is kept, a random walk with the same
    density takes over (`Polytope.walk`), whose draws are only nearly independent.
    """

    names: tuple[str, ...]
    limits: Polytope
    prior: Vector
    """Sums to one."""
    groups: tuple[tuple[int, ...], ...]
    """Indices into `names`, every source in one group."""
    strength: tuple[float, float]
    optional: tuple[int, ...] = ()
    until: tuple[float, float] | None = None
    """Of a curriculum: bounds of the share of the run that the first of two mixtures has."""
    interpolate: Literal["step", "linear"] = "step"
    unit: Literal["tokens", "rows"] | None = None

    @property
    def num_units(self) -> int:
        """Numbers between 0 and 1 that decide a draw in `from_units`."""
        one = len(self.names) - 1 + len(self.optional)
        return one if self.until is None else 2 * one + 1

    def draw(self, rng: np.random.Generator, count: int = 1) -> Vector:
        """Points, of shape (count, `num_coordinates`); equal generators give equal points."""
        if self.until is None:
            return self._shares(rng, count)
        until = rng.uniform(*self.until, size=(count, 1))
        return np.hstack([self._shares(rng, count), self._shares(rng, count), until])

    def near(self, rng: np.random.Generator, point: Vector, count: int) -> Vector:
        """Points on the way from `point` to random ones, most of them close to it; all within the limits."""
        steps = 10.0 ** rng.uniform(-2.5, -0.3, size=(count, 1))
        others = [replace(self, strength=(0.3, 3.0), optional=()).restricted(self._out(point)).draw(rng, count)]
        return point + steps * (others[0] - point)

    def restricted(self, out: Sequence[int]) -> "Mixtures":
        """The mixtures without some sources, and with all the others."""
        if not out:
            return self
        high, low = self.limits.high.copy(), self.limits.low.copy()
        high[list(out)] = low[list(out)] = 0.0
        return replace(self, limits=replace(self.limits, low=low, high=high), optional=())

    def shares(self, point: Vector) -> tuple[Vector, ...]:
        """The mixture of a point; of a curriculum both."""
        count = len(self.names)
        return (point[:count],) if self.until is None else (point[:count], point[count : 2 * count])

    def distance(self, point: Vector) -> float:
        """KL(mixture || prior) in nats; of a curriculum that of its mean mixture."""
        parts = self.shares(point)
        shares = parts[0] if self.until is None else parts[0] * point[-1] + parts[1] * (1 - point[-1])
        inside = shares > 0
        return float(np.sum(shares[inside] * np.log(shares[inside] / self.prior[inside])))

    def values(self, point: Vector) -> dict[str, Any]:
        """What a point puts into a recipe, by dotted path."""
        parts = [dict(zip(self.names, map(float, shares), strict=True)) for shares in self.shares(point)]
        unit = {"data.weight_unit": self.unit} if self.unit else {}
        if self.until is None:
            return {**{weight_path(name): share for name, share in parts[0].items()}, **unit}
        stages = [{"until": float(point[-1]), "weights": parts[0]}, {"until": 1.0, "weights": parts[1]}]
        return {"data.curriculum": stages, "data.interpolate": self.interpolate, **unit}

    def point(self, values: dict[str, Any]) -> Vector:
        """The point that `values` came from."""
        if self.until is None:
            return np.array([values[weight_path(name)] for name in self.names])
        stages = values["data.curriculum"]
        shares = [[stage["weights"].get(name, 0.0) for name in self.names] for stage in stages]
        return np.array([*shares[0], *shares[1], stages[0]["until"]])

    def at_prior(self, shares: Vector | None = None) -> Vector | None:
        """The point of one mixture for the whole run, the prior by default; None where the limits forbid it."""
        shares = self.prior if shares is None else shares
        return self.throughout(shares) if bool(self.limits.holds(shares)) else None

    def throughout(self, shares: Vector) -> Vector:
        """The point of one mixture for the whole run, whether or not the limits hold there."""
        return shares if self.until is None else np.array([*shares, *shares, sum(self.until) / 2])

    def from_units(self, units: Sequence[float]) -> Vector:
        """The point of `num_units` numbers between 0 and 1, for searchers that choose such numbers.

        Shares are broken off one after the other, each between the least and the largest share that the limits and
        those before it leave, by the quantile of its Beta distribution. Uniform numbers give the density of `draw`
        where only floors limit it; where caps do, all mixtures are reached, those near the caps a little too often.
        """
        half = len(self.names) - 1 + len(self.optional)
        first = self._broken_off(units[:half])
        if self.until is None:
            return first
        low, high = self.until
        return np.array([*first, *self._broken_off(units[half : 2 * half]), low + (high - low) * units[-1]])

    def to_units(self, point: Vector) -> list[float]:
        """The numbers that `from_units` makes `point` of."""
        units = [unit for shares in self.shares(point) for unit in self._units_of(shares)]
        if self.until is not None:
            units.append((point[-1] - self.until[0]) / (self.until[1] - self.until[0]))
        return units

    def _out(self, point: Vector) -> list[int]:
        return [index for index in self.optional if point[index] == 0]

    def _shares(self, rng: np.random.Generator, count: int) -> Vector:
        if not self.optional:
            return self._inside(rng, count)
        shares, todo = np.zeros((count, len(self.names))), np.arange(count)
        while len(todo):
            left_out = rng.uniform(size=(len(todo), len(self.optional))) < 0.5
            for pattern in np.unique(left_out, axis=0):
                some = replace(self.restricted([self.optional[i] for i in np.flatnonzero(pattern)]), optional=())
                if some.limits.center is not None:
                    rows = todo[np.all(left_out == pattern, axis=1)]
                    shares[rows] = some._inside(rng, len(rows))
            todo = np.flatnonzero(shares.sum(axis=1) == 0)  # where floors and caps leave no such mixture
        return shares

    def _inside(self, rng: np.random.Generator, count: int) -> Vector:
        kept: list[Vector] = []
        tried = 0
        while len(kept) * 1000 >= tried - _PATIENCE:
            drawn = self._dirichlet(rng, min(_BATCH, 64 + 4 * count))
            tried += len(drawn)
            kept.extend(drawn[self.limits.holds(drawn)])
            if len(kept) >= count:
                return np.array(kept[:count])
        strength = math.sqrt(self.strength[0] * self.strength[1])
        return self.limits.walk(rng, count, lambda shares: self._log_density(shares, strength))

    def _open(self) -> list[list[int]]:
        """The groups, without sources that are left out."""
        inside = [[index for index in group if self.limits.high[index] > 0] for group in self.groups]
        return [group for group in inside if group]

    def _concentration(self, strength: Any) -> tuple[Any, list[Any]]:
        """Dirichlet parameters over the groups, and within each of them."""
        groups = self._open()
        parts = np.array([self.prior[group].sum() for group in groups])
        over = strength * len(groups) * parts / parts.sum()
        return over, [
            strength * len(group) * self.prior[group] / part for group, part in zip(groups, parts, strict=True)
        ]

    def _dirichlet(self, rng: np.random.Generator, count: int) -> Vector:
        low, high = np.log(self.strength)
        strength = np.exp(rng.uniform(low, high, size=(count, 1)))
        groups = self._open()
        over, within = self._concentration(strength)
        floors = np.array([self.limits.low[group].sum() for group in groups])
        totals = floors + (1 - floors.sum()) * _dirichlet(rng, over)
        shares = np.zeros((count, len(self.names)))
        for group, total, concentration in zip(groups, totals.T, within, strict=True):
            least = self.limits.low[group]
            free = np.maximum(total[:, None] - least.sum(), 0)
            shares[:, group] = least + free * _dirichlet(rng, concentration)
        return shares

    def _log_density(self, shares: Vector, strength: float) -> float:
        groups = self._open()
        over, within = self._concentration(strength)
        above = np.maximum(shares - self.limits.low, 1e-12)
        density = 0.0
        for group, power, powers in zip(groups, over, within, strict=True):
            total = above[group].sum()
            density += (power - len(group)) * math.log(total) + float(
                ((powers - 1) * np.log(above[group] / total)).sum()
            )
        return density

    def _broken_off(self, units: Sequence[float]) -> Vector:
        count = len(self.names)
        out = [index for index, unit in zip(self.optional, units[count - 1 :], strict=True) if unit < 0.5]
        some = self.restricted(out)
        if some.limits.center is None:
            some = self
        shares: list[float] = []
        for index in range(count - 1):
            low, high = some.limits.span(index, np.array(shares))
            shares.append(some._quantile(index, shares, low, high, units[index]))
        return np.array([*shares, max(0.0, 1 - sum(shares))])

    def _units_of(self, shares: Vector) -> list[float]:
        some = self.restricted(self._out(shares))
        units = []
        for index in range(len(self.names) - 1):
            low, high = some.limits.span(index, shares[:index])
            cumulative, start, end = some._cumulative(index, shares[:index].tolist(), low, high)
            room = end - start
            units.append(float((cumulative(shares[index]) - start) / room) if room > 0 else 0.5)
        return [min(1.0, max(0.0, unit)) for unit in units] + [float(shares[index] > 0) for index in self.optional]

    def _quantile(self, index: int, before: Sequence[float], low: float, high: float, unit: float) -> float:
        if high - low < 1e-12:
            return low
        law, floor, room = self._law(index, before)
        start, end = law.cdf((low - floor) / room), law.cdf((high - floor) / room)
        if end - start < 1e-12:
            return low + (high - low) * unit
        return float(np.clip(floor + room * law.ppf(start + (end - start) * unit), low, high))

    def _cumulative(self, index: int, before: Sequence[float], low: float, high: float) -> tuple[Any, float, float]:
        law, floor, room = self._law(index, before)

        def cumulative(share: float) -> float:
            return float(law.cdf((share - floor) / room))

        return cumulative, cumulative(low), cumulative(high)

    def _law(self, index: int, before: Sequence[float]) -> tuple[Any, float, float]:
        """The Beta law of a source's share above its floor, as part of what those before it leave."""
        concentration = math.sqrt(self.strength[0] * self.strength[1]) * len(self.names) * self.prior
        later = [each for each in range(index + 1, len(self.names)) if self.limits.high[each] > 0]
        low = self.limits.low
        room = max(1 - sum(before) - low[index] - low[later].sum(), 1e-12)
        return beta(concentration[index], max(concentration[later].sum(), 1e-9)), float(low[index]), room


def _dirichlet(rng: np.random.Generator, concentration: Vector) -> Vector:
    """One draw for each row of `concentration`, stable for small ones: in logarithms (Marsaglia and Tsang 2000)."""
    logs = np.log(rng.gamma(concentration + 1)) + np.log(rng.uniform(size=concentration.shape)) / concentration
    shares = np.exp(logs - logs.max(axis=-1, keepdims=True))
    drawn: Vector = shares / shares.sum(axis=-1, keepdims=True)
    return drawn
