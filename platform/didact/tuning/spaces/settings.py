"""One setting: a number between 0 and 1 -> its value, and back."""

import math
from typing import Any, assert_never

from didact.spec.search.space import Choice, Grid, LogUniform, RandInt, Uniform

Drawn = Choice | Uniform | LogUniform | RandInt | Grid


def levels(kind: Drawn) -> tuple[Any, ...] | None:
    """All values a setting can take, in order; None for one that takes any number between its bounds."""
    match kind:
        case Choice(choice=values) | Grid(grid=values):
            return values
        case RandInt(randint=(low, high), factor=None, step=step):
            return tuple(range(low, high + 1, step))
        case RandInt(randint=(low, high), factor=int(factor)):
            return tuple(low * factor**power for power in range(math.floor(math.log(high / low, factor) + 1e-9) + 1))
        case Uniform(uniform=(low, high), step=float(step)):
            return tuple(low + step * count for count in range(math.floor((high - low) / step + 1e-9) + 1))
        case LogUniform(loguniform=(low, high), factor=float(factor)):
            return tuple(low * factor**power for power in range(math.floor(math.log(high / low, factor) + 1e-9) + 1))
        case _:
            return None


def from_unit(kind: Drawn, unit: float) -> Any:
    """The value at `unit`, 0 to 1; equal parts of the way have equal chances."""
    if (values := levels(kind)) is not None:
        return values[min(int(unit * len(values)), len(values) - 1)]
    match kind:
        case Uniform(uniform=(low, high)):
            return low + (high - low) * unit
        case LogUniform(loguniform=(low, high)):
            return min(high, low * (high / low) ** unit)
        case _:
            raise AssertionError(kind)


def to_unit(kind: Drawn, value: Any) -> float:
    """Where a value lies between 0 and 1; of several levels the middle of its part.

    Raises:
        ValueError: the setting cannot have this value.
    """
    if (values := levels(kind)) is not None:
        near = [index for index, each in enumerate(values) if each == value or _close(each, value)]
        if not near:
            raise ValueError(f"{value!r} is none of {values}")
        return (near[0] + 0.5) / len(values)
    match kind:
        case Uniform(uniform=(low, high)):
            unit = (value - low) / (high - low)
        case LogUniform(loguniform=(low, high)):
            unit = math.log(value / low) / math.log(high / low)
        case _:
            raise AssertionError(kind)
    if not -1e-9 <= unit <= 1 + 1e-9:
        raise ValueError(f"{value!r} lies outside of the bounds")
    return min(1.0, max(0.0, unit))


def extremes(kind: Drawn) -> tuple[Any, ...]:
    """Values that stand for all that a setting can have: each one listed, or both bounds."""
    match kind:
        case Choice(choice=values) | Grid(grid=values):
            return values
        case Uniform() | LogUniform() | RandInt():
            steps = levels(kind)
            return (from_unit(kind, 0.0), from_unit(kind, 1.0)) if steps is None else (steps[0], steps[-1])
        case _:
            assert_never(kind)


def coordinates(kind: Drawn, value: Any) -> list[float]:
    """The setting as numbers for a surrogate: its place in the unit interval, or one of each choice's own."""
    values = levels(kind)
    if isinstance(kind, Choice | Grid) and values is not None:
        return [float(each == value) for each in values]
    return [to_unit(kind, value)]


def num_coordinates(kind: Drawn) -> int:
    """How many `coordinates` there are."""
    return len(levels(kind) or ()) if isinstance(kind, Choice | Grid) else 1


def _close(level: Any, value: Any) -> bool:
    return isinstance(level, float) and isinstance(value, int | float) and math.isclose(level, value, rel_tol=1e-9)
