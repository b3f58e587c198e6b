"""What a search draws from: distributions and limits -> values at dotted paths of a recipe.

    SweepSpec.space, the recipe's sources, their sizes -> resolve_mixtures -> Space -> draw -> dotted path -> value

Example:
    >>> from didact.spec.search.space import RandInt
    >>> from didact.tuning.spaces import extremes
    >>> sorted(extremes(RandInt(randint=(4, 16))))
    [4, 16]
"""

from didact.tuning.spaces.mixtures import Mixtures, weighed_source, weight_path
from didact.tuning.spaces.resolve import Sizes, licensed, proportional, resolve_mixtures, unit_of
from didact.tuning.spaces.settings import extremes
from didact.tuning.spaces.space import Space, Values, old_values

__all__ = [
    "Mixtures",
    "Sizes",
    "Space",
    "Values",
    "extremes",
    "licensed",
    "old_values",
    "proportional",
    "resolve_mixtures",
    "unit_of",
    "weighed_source",
    "weight_path",
]
