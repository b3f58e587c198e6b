"""What a search may draw: distributions of settings, and mixtures of sources with their limits."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from didact.spec.base import Spec

_Number = TypeVar("_Number", int, float)
_Share = Annotated[float, Field(ge=0, le=1)]
_ROUNDING = 1e-9


def _ascending(bounds: tuple[_Number, _Number]) -> tuple[_Number, _Number]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"bounds must be lower, then higher; found {list(bounds)}")
    return bounds


def _share_for_all(given: Any) -> Any:
    return _for_all(given, 1.0, "a number from 0 to 1")


def _passes_for_all(given: Any) -> Any:
    return _for_all(given, math.inf, "a number above 0")


def _for_all(given: Any, most: float, expected: str) -> Any:
    """One number for every source, as a mapping."""
    if isinstance(given, dict):
        return given
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= most:
        return {ALL: given}
    raise ValueError(f"expected {expected}, or a mapping of sources to such numbers; found {given!r}")


ALL = "all"
"""In a mapping of sources: those that are not named."""
_Shares = Annotated[
    dict[str, _Share],
    BeforeValidator(_share_for_all),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "object", "additionalProperties": {"type": "number"}}]}),
]
_Passes = Annotated[
    dict[str, Annotated[float, Field(gt=0)]],
    BeforeValidator(_passes_for_all),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "object", "additionalProperties": {"type": "number"}}]}),
]
_Bounds = Annotated[tuple[float, float], AfterValidator(_ascending)]


class Setting(Spec):
    """What all distributions of one setting share."""

    when: dict[str, Any] = Field(default_factory=dict)
    """Other paths of the space with the value, or the list of values, that this setting needs; otherwise it is not set,
    and the recipe's own value or the schema's default holds."""


class Choice(Setting):
    """One of the values, uniformly."""

    choice: tuple[Any, ...] = Field(min_length=1)
    """The values."""


class Uniform(Setting):
    """Uniform between two numbers."""

    uniform: _Bounds
    """Lower and upper bound."""
    step: float | None = Field(default=None, gt=0)
    """Only the lower bound and whole steps above it."""


class LogUniform(Setting):
    """Uniform in the logarithm; both bounds positive."""

    loguniform: _Bounds
    """Lower and upper bound."""
    factor: float | None = Field(default=None, gt=1)
    """Only the lower bound and its products with powers of this."""

    @field_validator("loguniform")
    @classmethod
    def _positive(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if min(bounds) <= 0:
            raise ValueError(f"bounds must be positive; found {bounds}")
        return bounds


class RandInt(Setting):
    """A whole number, both bounds included."""

    randint: Annotated[tuple[int, int], AfterValidator(_ascending)]
    """Lower and upper bound."""
    step: int = Field(default=1, ge=1)
    """Only the lower bound and whole steps above it."""
    factor: int | None = Field(default=None, ge=2)
    """Only the lower bound and its products with powers of this."""

    @model_validator(mode="after")
    def _one_kind_of_step(self) -> Self:
        if self.factor is not None and (self.step != 1 or self.randint[0] < 1):
            raise ValueError(f"factor goes without step and from a bound of at least 1; found {list(self.randint)}")
        return self


class Grid(Setting):
    """Every value in turn."""

    grid: tuple[Any, ...] = Field(min_length=1)
    """The values."""


class Derived(Setting):
    """Follows another setting of the space: `times` its value, plus `plus`; such as alpha = 2r."""

    of: str
    """The other setting's dotted path; where it is not set, neither is this one."""
    times: float = 1.0
    """Factor."""
    plus: float = 0.0
    """What is added to the product."""


class Simplex(Spec):
    """Mixture weights: non-negative, summing to one, uniform over all mixes (Dirichlet(1)). For `data.weights` only."""

    simplex: tuple[str, ...] = Field(min_length=2)
    """Names of the recipe's sources that share the weight; a source left out keeps the recipe's own."""

    @field_validator("simplex")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _once(names)

    @property
    def space(self) -> "MixtureSpace":
        """The same as a mixture without limits."""
        return MixtureSpace(sources=self.simplex)


class GroupSpace(Spec):
    """Sources whose shares are drawn as one share first, which they then divide."""

    sources: tuple[str, ...] = Field(min_length=1)
    """Names of sources."""
    floor: _Share = 0.0
    """Least share of all of them together."""
    cap: _Share = 1.0
    """Largest share of all of them together."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.cap < self.floor:
            raise ValueError(f"cap {self.cap:g} is below floor {self.floor:g}")
        return self


class LicenceFilter(Spec):
    """Which sources may be used, by what the recipe or else the catalog's card says of them."""

    commercial: bool = False
    """Only sources that are known to allow commercial use."""
    allow: tuple[str, ...] = ()
    """Only these licences, as SPDX ids or patterns such as `CC-BY-*`; empty for any."""


class CurriculumSpace(Spec):
    """Two mixtures are drawn, and the share of the run at which the first becomes the second."""

    until: Annotated[tuple[float, float], AfterValidator(_ascending)]
    """Bounds of that share, both above 0 and below 1."""
    interpolate: Literal["step", "linear"] = "step"
    """`step` changes there at once; `linear` holds the first until there, and reaches the second at the end."""

    @field_validator("until")
    @classmethod
    def _inside(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if not 0 < bounds[0] < bounds[1] < 1:
            raise ValueError(f"both bounds lie above 0 and below 1; found {list(bounds)}")
        return bounds


class MixtureSpace(Spec):
    """Mixtures of the recipe's sources: shares that sum to one, within limits."""

    sources: tuple[str, ...] = ()
    """Sources that share the weight; empty for all of the recipe's that the licence filter leaves."""
    floor: _Shares = Field(default_factory=dict)
    """Least share: one number for every source, or source -> number, with `all` for those that are not named."""
    cap: _Shares = Field(default_factory=dict)
    """Largest share, written alike."""
    groups: dict[str, GroupSpace] = Field(default_factory=dict)
    """Nested shares: groups divide the whole, sources divide their group's part. One in no group stands for itself."""
    optional: tuple[str, ...] = ()
    """Sources that half of the draws leave out (weight 0); their floor holds where they are in."""
    prior: Literal["uniform", "proportional", "recipe"] = "uniform"
    """The mixture that draws lie around: all alike, by size, or the recipe's weights."""
    prior_shares: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """In its place a stated mixture; only ratios matter, and a source left out gets nearly nothing."""
    strength: Annotated[float, Field(gt=0)] | Annotated[tuple[float, float], AfterValidator(_ascending)] = 1.0
    """How closely: with K sources, shares above the floors are Dirichlet(strength * K * prior). 1 with a uniform prior
    is uniform over all mixtures; of two bounds, each draw takes its own in between (uniform in the logarithm)."""
    kl_to_prior: float = Field(default=0.05, ge=0)
    """`searcher: mixture` adds so much of the goal for each nat of distance, KL(mixture || prior)."""
    max_epochs: _Passes = Field(default_factory=dict)
    """Most passes over a source in the longest trial, written alike; where nothing is said, the recipe's own hold."""
    licence: LicenceFilter | None = None
    """Leaves sources out of data and search."""
    unit: Literal["tokens", "rows"] | None = None
    """Whether shares are of tokens or of rows; null takes the recipe's `data.weight_unit`."""
    curriculum: CurriculumSpace | None = None
    """Draw two mixtures and where one becomes the other."""

    @field_validator("sources", "optional")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _once(names)

    @field_validator("strength")
    @classmethod
    def _positive(cls, strength: float | tuple[float, float]) -> float | tuple[float, float]:
        if isinstance(strength, tuple) and strength[0] <= 0:
            raise ValueError(f"both bounds must be positive; found {list(strength)}")
        return strength

    @model_validator(mode="after")
    def _possible(self) -> Self:
        grouped = [name for group in self.groups.values() for name in group.sources]
        if twice := sorted({name for name in grouped if grouped.count(name) > 1}):
            raise ValueError(f"groups: source {twice[0]!r} is named twice; a source is in one group")
        if self.sources and (unknown := sorted(self.named() - set(self.sources))):
            raise ValueError(f"sources leaves out {unknown[0]!r}, which {self.where(unknown[0])} names")
        if self.curriculum and (self.optional or self.max_epochs):
            field = "optional" if self.optional else "max_epochs"
            raise ValueError(f"a curriculum states all weights; remove curriculum or {field}")
        if self.sources:
            self.check_limits(self.sources)
        return self

    def named(self) -> set[str]:
        """Sources that any field but `sources` names."""
        grouped = (name for each in self.groups.values() for name in each.sources)
        mappings = (self.floor, self.cap, self.prior_shares, self.max_epochs)
        return {*self.optional, *grouped}.union(*mappings) - {ALL}

    def where(self, source: str) -> str:
        """The first field that names a source."""
        if source in self.sources:
            return "sources"
        for field in ("floor", "cap", "prior_shares", "max_epochs", "optional"):
            if source in getattr(self, field):
                return field
        return next((f"groups.{name}" for name, group in self.groups.items() if source in group.sources), "sources")

    def floor_of(self, source: str) -> float:
        """Least share of a source."""
        return self.floor.get(source, self.floor.get(ALL, 0.0))

    def cap_of(self, source: str) -> float:
        """Largest share of a source."""
        return self.cap.get(source, self.cap.get(ALL, 1.0))

    def check_limits(self, sources: tuple[str, ...]) -> None:
        """Refuse limits that no mixture of these sources keeps.

        Raises:
            ValueError: with the field and the sum.
        """
        for name in sources:
            if self.cap_of(name) < self.floor_of(name):
                raise ValueError(f"cap of {name} is {self.cap_of(name):g}, below its floor {self.floor_of(name):g}")
        certain = [name for name in sources if name not in self.optional]
        grouped = {name: group for group in self.groups.values() for name in group.sources}
        for name, group in self.groups.items():
            inside = [each for each in group.sources if each in sources]
            least = sum(self.floor_of(each) for each in inside if each in certain)
            if least > group.cap + _ROUNDING:
                raise ValueError(f"groups.{name}: its floors add up to {least:g}, above its cap {group.cap:g}")
            if (most := sum(map(self.cap_of, inside))) < group.floor - _ROUNDING:
                raise ValueError(f"groups.{name}: its caps add up to {most:g}, below its floor {group.floor:g}")
        alone = [name for name in sources if name not in grouped]
        floors = sum(self.floor_of(name) for name in alone if name in certain) + sum(
            max(group.floor, sum(self.floor_of(name) for name in group.sources if name in certain))
            for group in self.groups.values()
        )
        if floors > 1 + _ROUNDING:
            raise ValueError(f"floor: floors add up to {floors:g}, above 1; lower some")
        caps = sum(map(self.cap_of, alone)) + sum(
            min(group.cap, sum(map(self.cap_of, group.sources))) for group in self.groups.values()
        )
        if caps < 1 - _ROUNDING:
            raise ValueError(f"cap: caps add up to {caps:g}, below 1; raise some")


class Mixture(Spec):
    """Mixture weights within limits. For `data.weights` only."""

    mixture: MixtureSpace

    @property
    def space(self) -> MixtureSpace:
        """The mixtures that can be drawn."""
        return self.mixture


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError(f"each source can be named once; found {list(names)}")
    return names


def _kind(value: Any) -> str | None:
    """The key that says which distribution is meant, so that errors speak of that one only."""
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Spec) else ()
    return next((key for key in keys if key in _KINDS), None)


_KINDS = ("choice", "uniform", "loguniform", "randint", "grid", "of", "simplex", "mixture")
Distribution = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[RandInt, Tag("randint")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[Derived, Tag("of")]
    | Annotated[Simplex, Tag("simplex")]
    | Annotated[Mixture, Tag("mixture")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message=f"expected a mapping with one of the keys {', '.join(_KINDS)}",
    ),
]


def in_order(space: Mapping[str, Distribution]) -> list[str]:
    """Paths of a space, each after those that its `when` and `of` name.

    Raises:
        ValueError: one names a path that is not in the space, or they name each other in a circle.
    """
    needs: dict[str, set[str]] = {}
    for path, kind in space.items():
        needs[path] = {*getattr(kind, "when", {}), *([kind.of] if isinstance(kind, Derived) else [])}
        for other in sorted(needs[path]):
            if other not in space or not isinstance(space[other], Setting):
                field = "of" if isinstance(kind, Derived) and kind.of == other else "when"
                raise ValueError(f"space.{path}.{field} names {other!r}, which is no setting of the space")
    ordered: list[str] = []
    while len(ordered) < len(space):
        ready = [path for path in space if path not in ordered and needs[path] <= set(ordered)]
        if not ready:
            circle = ", ".join(path for path in space if path not in ordered)
            raise ValueError(f"when and of lead in a circle: {circle}")
        ordered.append(ready[0])
    return ordered
