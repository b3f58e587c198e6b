"""Many data sets, one weighted stream that any worker can enter at any position.

    data section, rows and mean tokens of its sources -> Mixture -> sample(position) -> SampleId (source, row, epoch)

Example:
    >>> from didact.mixtures import Mixture
    >>> mixture = Mixture.build(["chat", "sums"], [1000, 50], [200.0, 20.0], [0.9, 0.1], unit="tokens", seed=0)
    >>> mixture.ids(5, 8) == tuple(mixture.sample(position) for position in (5, 6, 7))
    True
    >>> [round(row.share_of_tokens, 2) for row in mixture.describe(10_000)]
    [0.9, 0.1]
"""

from didact.mixtures.build import build_mixture
from didact.mixtures.mixture import Mixture
from didact.mixtures.online import online_shares
from didact.mixtures.schedule import quantise
from didact.mixtures.types import MixtureRow, SampleId, Stage

__all__ = ["Mixture", "MixtureRow", "SampleId", "Stage", "build_mixture", "online_shares", "quantise"]
