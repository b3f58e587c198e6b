"""What figures say and how far chance may be behind them. Pure functions over one number a question.

    values, clusters, groups -> Estimate, Averages, PairedDifference, Reach, Calibration, Agreement

Difference and interval come first; a p-value stands beside them, corrected where there are many tasks.

Example:
    >>> from didact.evaluation.statistics import compare
    >>> found = compare(before=[0, 0, 1, 0, 1, 0, 0, 0], after=[1, 1, 1, 1, 1, 1, 0, 0])
    >>> f"{found.difference:+.2f}, from {found.low:+.2f} to {found.high:+.2f}"
    '+0.50, from -0.10 to +0.78'
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.statistics.blocks import BlockedNoise, blocked_noise
    from didact.evaluation.statistics.confidence import Bin, Calibration, calibration
    from didact.evaluation.statistics.corrections import corrected
    from didact.evaluation.statistics.direction import (
        has_better_side,
        higher_is_better,
        improvement,
        is_share,
        least_possible,
    )
    from didact.evaluation.statistics.groups import Averages, averages, macro_count
    from didact.evaluation.statistics.intervals import Estimate, mean_interval, wilson_interval
    from didact.evaluation.statistics.paired import (
        PairedDifference,
        clustered_difference,
        compare,
        macro_difference,
        mcnemar,
        paired_bootstrap,
    )
    from didact.evaluation.statistics.passes import Agreement, agreement
    from didact.evaluation.statistics.power import Reach, questions_needed, smallest_difference

__all__ = [
    "Agreement",
    "Averages",
    "Bin",
    "BlockedNoise",
    "Calibration",
    "Estimate",
    "PairedDifference",
    "Reach",
    "agreement",
    "averages",
    "blocked_noise",
    "calibration",
    "clustered_difference",
    "compare",
    "corrected",
    "has_better_side",
    "higher_is_better",
    "improvement",
    "is_share",
    "least_possible",
    "macro_count",
    "macro_difference",
    "mcnemar",
    "mean_interval",
    "paired_bootstrap",
    "questions_needed",
    "smallest_difference",
    "wilson_interval",
]

__getattr__ = lazily(__name__)
