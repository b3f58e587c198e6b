"""Many data sets, one weighted stream that any worker can enter at any position.

    names, rows, mean tokens, weights, seed -> Mixture -> sample(position) -> SampleId (source, row, epoch)

Example:
    >>> from didact.mixtures import Mixture
    >>> mixture = Mixture.build(["chat", "sums"], [1000, 50], [200.0, 20.0], [0.9, 0.1], unit="tokens", seed=0)
    >>> mixture.ids(5, 8) == tuple(mixture.sample(position) for position in (5, 6, 7))
    True
    >>> [round(row.share_of_tokens, 2) for row in mixture.describe(10_000)]
    [0.9, 0.1]
"""

from didact.mixtures.mixture import Mixture
from didact.mixtures.types import MixtureRow, SampleId

__all__ = ["Mixture", "MixtureRow", "SampleId"]
