"""A mixture space, its recipe and the sizes of its sources -> the mixtures that can be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from didact.datasets.catalog import commercial_of, licence_of
from didact.errors import SpecError
from didact.spec import DataSpec, SourceSpec
from didact.spec.search.space import ALL, MixtureSpace
from didact.tuning.spaces.mixtures import Mixtures
from didact.tuning.spaces.polytope import Polytope, Vector


@dataclass(frozen=True, slots=True)
class Sizes:
    """What prepared data says of the sources, for priors by size and limits on passes."""

    rows: dict[str, int]
    """Training rows by source."""
    mean_tokens: dict[str, float]
    """Mean tokens of a row."""
    num_samples: int
    """Of the longest trial."""


def licensed(space: MixtureSpace, data: DataSpec, where: str) -> tuple[str, ...]:
    """Names of the sources that the space draws shares for, those left out by its licence filter not among them.

    Raises:
        SpecError: a source that the space names is unknown to the recipe or left out by the filter, a group is left
            empty, or fewer than two remain.
    """
    known = {source.name: source for source in data.sources}
    for name in [*space.sources, *sorted(space.named())]:
        if name not in known:
            raise SpecError(
                f"{where}.{space.where(name)}: the recipe has no source {name!r}; expected some of {list(known)}"
            )
    refused = {name: why for name in known if (why := _refusal(space, known[name])) is not None}
    for name in [*space.sources, *sorted(space.named() - _grouped(space))]:
        if name in refused:
            raise SpecError(
                f"{where}.{space.where(name)} names source {name!r}, which the licence filter leaves empty: "
                f"{refused[name]}; remove it there, or change licence"
            )
    for group, inside in space.groups.items():
        if all(name in refused for name in inside.sources):
            name = inside.sources[0]
            raise SpecError(f"{where}.groups.{group}: the licence filter leaves it empty: {name}: {refused[name]}")
    left = tuple(name for name in (space.sources or known) if name not in refused)
    if len(left) < 2:
        reasons = "".join(f"\n  - {name}: {why}" for name, why in refused.items())
        raise SpecError(f"{where}: a mixture needs two sources; found {', '.join(left) or 'none'}{reasons}")
    try:
        space.check_limits(left)
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from None
    return left


def resolve_mixtures(space: MixtureSpace, data: DataSpec, sizes: Sizes | None, where: str) -> Mixtures:
    """The mixtures that can be drawn.

    Args:
        space: with its limits.
        data: of the recipe, without sources that the licence filter leaves out.
        sizes: of prepared sources; None leaves limits on passes and a prior by size for later.
        where: file and field, named in errors.

    Raises:
        SpecError: no mixture keeps all limits; names the field.
    """
    names = licensed(space, data, where)
    groups = [[name for name in group.sources if name in names] for group in space.groups.values()]
    alone = [name for name in names if not any(name in group for group in groups)]
    if space.groups:
        groups += [[name] for name in alone]
    else:
        groups = [alone]
    indices = tuple(tuple(names.index(name) for name in group) for group in groups if group)
    matrix, bound = _group_limits(space, names)
    limits = Polytope(
        np.array([space.floor_of(name) for name in names]),
        np.array([space.cap_of(name) for name in names]),
        matrix,
        bound,
    )
    if limits.center is None:
        raise SpecError(f"{where}: no mixture keeps all floors and caps; lower a floor or raise a cap")
    if sizes is not None:
        more, most = _pass_limits(space, data, names, sizes)
        limits = Polytope(limits.low, limits.high, np.vstack([matrix, more]), np.concatenate([bound, most]))
        if limits.center is None:
            allowed = ", ".join(f"{name} {sizes.rows[name]:,} rows" for name in names)
            field = "max_epochs" if space.max_epochs else "licence" if space.licence else "floor"
            raise SpecError(
                f"{where}.{field}: no mixture keeps max_epochs ({allowed}) within a trial's {sizes.num_samples:,} "
                "samples and the floors; raise max_epochs, lower a floor, or make trials shorter"
            )
    return Mixtures(
        names=names,
        limits=limits,
        prior=_prior(space, data, names, groups, sizes),
        groups=indices,
        strength=space.strength if isinstance(space.strength, tuple) else (space.strength, space.strength),
        optional=tuple(names.index(name) for name in space.optional),
        until=space.curriculum.until if space.curriculum else None,
        interpolate=space.curriculum.interpolate if space.curriculum else "step",
        unit=space.unit,
    )


def proportional(data: DataSpec, names: Sequence[str], sizes: Sizes, unit: str) -> Vector:
    """Shares by size, in the unit of the weights."""
    by_size = [sizes.rows[name] * (sizes.mean_tokens[name] if unit == "tokens" else 1.0) for name in names]
    return np.array(by_size, dtype=float) / sum(by_size)


def unit_of(space: MixtureSpace, data: DataSpec) -> str:
    """What the shares are shares of."""
    return space.unit or data.weight_unit


def _grouped(space: MixtureSpace) -> set[str]:
    return {name for group in space.groups.values() for name in group.sources}


def _refusal(space: MixtureSpace, source: SourceSpec) -> str | None:
    """Why the licence filter leaves a source out."""
    asked = space.licence
    if asked is None:
        return None
    licence = licence_of(source)
    if asked.allow and not any(fnmatchcase(licence.lower(), pattern.lower()) for pattern in asked.allow):
        return f"its licence is {licence}, and licence.allow has {', '.join(asked.allow)}"
    if asked.commercial and not (known := commercial_of(source)):
        return f"commercial use is {'not known to be allowed' if known is None else 'forbidden'} (licence {licence})"
    return None


def _group_limits(space: MixtureSpace, names: Sequence[str]) -> tuple[Vector, Vector]:
    rows, bounds = [np.zeros((0, len(names)))], list[float]()
    for group in space.groups.values():
        inside = np.array([[float(name in group.sources) for name in names]])
        if group.cap < 1:
            rows, bounds = [*rows, inside], [*bounds, group.cap]
        if group.floor > 0:
            rows, bounds = [*rows, -inside], [*bounds, -group.floor]
    return np.vstack(rows), np.array(bounds)


def _pass_limits(space: MixtureSpace, data: DataSpec, names: Sequence[str], sizes: Sizes) -> tuple[Vector, Vector]:
    """Draws of source k are n * (w_k / m_k) / sum_j (w_j / m_j), at most its epochs times its rows: linear in w."""
    rows, bounds = [np.zeros((0, len(names)))], list[float]()
    by_tokens = unit_of(space, data) == "tokens"
    inverse = {name: 1 / mean if by_tokens else 1.0 for name, mean in sizes.mean_tokens.items()}
    rest = sum(source.weight * inverse[source.name] for source in data.sources if source.name not in names)
    for source in data.sources:
        epochs = _epochs(space, data, source)
        if source.name not in names or epochs is None:
            continue
        part = epochs * sizes.rows[source.name] / sizes.num_samples
        if part < 1:
            row = [(float(name == source.name) - part) * inverse[name] for name in names]
            scale = max(map(abs, row))
            rows, bounds = [*rows, np.array([row]) / scale], [*bounds, part * rest / scale]
    return np.vstack(rows), np.array(bounds)


def _epochs(space: MixtureSpace, data: DataSpec, source: SourceSpec) -> float | None:
    if (given := space.max_epochs.get(source.name, space.max_epochs.get(ALL))) is not None:
        return given
    return source.max_epochs if source.max_epochs is not None else data.max_epochs


def _prior(
    space: MixtureSpace, data: DataSpec, names: Sequence[str], groups: Sequence[Sequence[str]], sizes: Sizes | None
) -> Vector:
    if space.prior_shares:
        stated = np.array([space.prior_shares.get(name, 0.0) for name in names])
        least = stated[stated > 0].min() * 1e-3  # one that is not named is drawn hardly ever, and not never
        prior = np.maximum(stated, least)
    elif space.prior == "recipe":
        prior = np.array([source.weight for name in names for source in data.sources if source.name == name])
    elif space.prior == "proportional" and sizes is not None:
        prior = proportional(data, names, sizes, unit_of(space, data))
    else:
        inside = [group for group in groups if group]
        share = {name: 1 / len(inside) / len(group) for group in inside for name in group}
        prior = np.array([share[name] for name in names])
    total: Vector = prior / prior.sum()
    return total
