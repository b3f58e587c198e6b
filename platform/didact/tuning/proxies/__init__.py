"""What ranks mixtures before any of them is trained.

    SweepSpec.proxy, TrialPlan -> proxied -> `searcher: mixture` with a Ranking, which it follows where that is right

A proxy ranks and no more: shares are never taken from it alone, since what it calls the best is off by more than its
ranks are.

Example:
    >>> import numpy as np
    >>> from didact.tuning.proxies import source_weights
    >>> source_weights(np.array([0.5, 0.25, 0.25]), 0, 0.5).tolist()
    [0.75, 0.125, 0.125]
"""

from didact.tuning.proxies.merging import MergedAdapters, merged_model
from didact.tuning.proxies.mixmin import Answers, answers_of, best_blend, blend_losses
from didact.tuning.proxies.running import check_proxy, proxied, score_mixes, source_weights

__all__ = [
    "Answers",
    "MergedAdapters",
    "answers_of",
    "best_blend",
    "blend_losses",
    "check_proxy",
    "merged_model",
    "proxied",
    "score_mixes",
    "source_weights",
]
