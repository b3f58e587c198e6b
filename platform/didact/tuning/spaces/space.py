"""A whole space: settings with their conditions, and at most one mixture."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from didact.spec.search.space import Choice, Derived, Distribution, Grid, Mixture, Simplex, in_order
from didact.tuning.spaces.mixtures import Mixtures, weight_path
from didact.tuning.spaces.polytope import Vector
from didact.tuning.spaces.settings import Drawn, coordinates, extremes, from_unit, num_coordinates, to_unit

Values = dict[str, Any]
"""Dotted path into a recipe -> value."""
_STEP, _JUMP = 0.1, 0.2
"""Of a neighbour: how far numbers move within 0 to 1, and how often a choice is made anew."""


@dataclass(frozen=True, eq=False)
class Space:
    """What a search draws from. A setting whose condition does not hold has no value in a draw."""

    kinds: Mapping[str, Distribution]
    mixtures: Mixtures | None = None

    @cached_property
    def settings(self) -> dict[str, Drawn | Derived]:
        """All but the mixture, each after those that it depends on."""
        ordered = [(path, self.kinds[path]) for path in in_order(self.kinds)]
        return {path: kind for path, kind in ordered if not isinstance(kind, Simplex | Mixture)}

    @property
    def num_units(self) -> int:
        """Numbers between 0 and 1 that `from_units` takes: one a setting that is drawn, then the mixture's."""
        return len(self.drawn) + (self.mixtures.num_units if self.mixtures else 0)

    @cached_property
    def drawn(self) -> dict[str, Drawn]:
        """Settings that follow no other one."""
        return {path: kind for path, kind in self.settings.items() if not isinstance(kind, Derived)}

    def draw(self, rng: np.random.Generator, grid: Values | None = None) -> Values:
        """Random values; those of grids are given."""
        values = self.ask(lambda path, kind: _at_random(rng, path, kind, grid))
        return {**values, **(self.mixtures.values(self.mixtures.draw(rng)[0]) if self.mixtures else {})}

    def draws(self, rng: np.random.Generator, count: int) -> list[Values]:
        """Many random draws at once; not those of `draw`."""
        points = self.mixtures.draw(rng, count) if self.mixtures else [None] * count
        return [
            {
                **self.ask(lambda path, kind: _at_random(rng, path, kind, None)),
                **(self.mixtures.values(point) if self.mixtures and point is not None else {}),
            }
            for point in points
        ]

    def near(self, rng: np.random.Generator, values: Values, count: int) -> list[Values]:
        """Random draws close to one: a mixture on the way to another one, settings a small step away."""
        points = self.mixtures.near(rng, self.mixtures.point(values), count) if self.mixtures else [None] * count

        def stepped(path: str, kind: Drawn) -> Any:
            if path not in values or (rng.uniform() < _JUMP and isinstance(kind, Choice)):
                return from_unit(kind, rng.uniform())
            if isinstance(kind, Choice):
                return values[path]
            return from_unit(kind, float(np.clip(to_unit(kind, values[path]) + rng.normal(scale=_STEP), 0, 1)))

        return [
            {**self.ask(stepped), **(self.mixtures.values(point) if self.mixtures and point is not None else {})}
            for point in points
        ]

    def ask(self, value_of: Callable[[str, Drawn], Any]) -> Values:
        """Values of the settings whose conditions hold, each as `value_of` says, in order of dependence."""
        values: Values = {}
        for path, kind in self.settings.items():
            if not _holds(kind.when, values):
                continue
            if not isinstance(kind, Derived):
                values[path] = value_of(path, kind)
            elif kind.of in values:
                values[path] = _derived(kind, values[kind.of])
        return values

    def from_units(self, units: Sequence[float]) -> Values:
        """Values of `num_units` numbers between 0 and 1; those of settings whose condition does not hold do nothing."""
        unit = dict(zip(self.drawn, units, strict=False))
        values = self.ask(lambda path, kind: from_unit(kind, unit[path]))
        if self.mixtures:
            values |= self.mixtures.values(self.mixtures.from_units(units[len(self.drawn) :]))
        return values

    def grid_points(self) -> list[Values]:
        """All combinations of the grids' values; one empty one where there is no grid."""
        points: list[Values] = [{}]
        for path, kind in self.settings.items():
            if isinstance(kind, Grid):
                points = [{**point, path: value} for point in points for value in kind.grid]
        return points

    def corners(self) -> Iterator[Values]:
        """Draws that show each extreme value once, beside first values of all that it needs."""
        first = self.ask(lambda _path, kind: extremes(kind)[0])
        yield first
        for path, kind in self.drawn.items():
            for value in extremes(kind):
                wanted = {**self._needed(path), path: value}
                yield self.ask(lambda each, other, wanted=wanted: wanted.get(each, extremes(other)[0]))  # type: ignore[misc]

    def _needed(self, path: str) -> Values:
        """Values under which a setting's conditions hold."""
        needed: Values = {}
        for other, allowed in self.settings[path].when.items():
            needed |= {other: _listed(allowed)[0], **self._needed(other)}
        return needed

    def coordinates(self, values: Mapping[str, Any]) -> Vector:
        """A draw as numbers for a surrogate: square roots of shares, then settings; 0 where a setting has no value."""
        parts: list[float] = []
        if self.mixtures:
            point = self.mixtures.point(dict(values))
            shares = self.mixtures.shares(point)
            parts += [float(root) for each in shares for root in np.sqrt(each)]
            parts += [float(point[-1])] if self.mixtures.until else []
        for path, kind in self.drawn.items():
            known = path in values
            parts += coordinates(kind, values[path]) if known else [0.0] * num_coordinates(kind)
        return np.array(parts)

    @property
    def blocks(self) -> tuple[int, ...]:
        """How many coordinates belong together: the mixture's, then each setting's."""
        sizes = []
        if self.mixtures:
            count = len(self.mixtures.names)
            sizes += [count] if self.mixtures.until is None else [count, count, 1]
        return (*sizes, *(num_coordinates(kind) for kind in self.drawn.values()))

    def fits(self, values: Mapping[str, Any]) -> bool:
        """Whether a draw of another search could have been drawn here."""
        try:
            asked = self.ask(lambda path, kind: _checked(kind, values[path]))
            if self.mixtures:
                point = self.mixtures.point(dict(values))
                out = [index for index in self.mixtures.optional if point[index] == 0]
                limits = self.mixtures.restricted(out).limits
                if not all(bool(limits.holds(shares)) for shares in self.mixtures.shares(point)):
                    return False
                asked |= self.mixtures.values(point)
        except (KeyError, ValueError, TypeError):
            return False
        return set(asked) == set(values)


def _at_random(rng: np.random.Generator, path: str, kind: Drawn, grid: Values | None) -> Any:
    unit = rng.uniform()
    return grid[path] if grid and path in grid else from_unit(kind, unit)


def _checked(kind: Drawn, value: Any) -> Any:
    to_unit(kind, value)
    return value


def _holds(when: Mapping[str, Any], values: Values) -> bool:
    return all(path in values and values[path] in _listed(allowed) for path, allowed in when.items())


def _listed(allowed: Any) -> list[Any]:
    return allowed if isinstance(allowed, list) else [allowed]


def _derived(kind: Derived, value: Any) -> Any:
    derived = kind.times * value + kind.plus
    return int(derived) if isinstance(value, int) and float(derived).is_integer() else derived


def old_values(space: Mapping[str, Distribution], sample: Mapping[str, Any]) -> Values:
    """Values of a sample that was drawn before samples held values.

    A simplex was drawn as independent numbers u, of which w_k = -log(u_k) / sum_j -log(u_j) are the weights (Devroye,
    Non-Uniform Random Variate Generation, 1986, chapter XI.4).
    """
    values: Values = {}
    for path, kind in space.items():
        if isinstance(kind, Simplex):
            parts = {name: -math.log(sample[f"{path}.{name}"]) for name in kind.simplex}
            total = sum(parts.values())
            values.update({weight_path(name): part / total for name, part in parts.items()})
        else:
            values[path] = sample[path]
    return values
