"""What the name of a metric says: which way is better, and whether it is a share."""

import math
from collections.abc import Sequence

_LOWER = frozenset(
    (
        *("loss", "perplexity", "byte_perplexity", "word_perplexity", "bits_per_byte", "ece", "brier", "brier_score"),
        # Of lm-eval and its kin: errors of translation, of recognised speech and of numbers.
        *("ter", "wer", "cer", "mer", "mae", "mse", "rmse", "edit_distance"),
        *("lost", "flipped", "unread", "strict_unread", "unmarked", "cut", "problems", "refused", "seconds", "latency"),
    )
)
_NEITHER = frozenset(
    (
        *("answer_tokens", "answer_length", "first_won", "longer_won", "length_correlation", "agreement"),
        "confidence",  # a model that is surer is not more often right; `ece` says whether it may be
    )
)
LOWER, HIGHER = "_lower_is_better", "_higher_is_better"
"""Endings of names that would say otherwise without them, such as a metric of one's own lm-eval task."""
_NEVER_BELOW_ZERO = frozenset(
    (
        *("loss", "perplexity", "byte_perplexity", "word_perplexity", "bits_per_byte", "seconds", "latency"),
        *("tokens_per_second", "ece", "brier", "brier_score", "answer_tokens", "answer_length"),
    )
)
_NO_SHARES = _NEVER_BELOW_ZERO | {
    *("log_likelihood", "length_correlation", "rank_correlation", "judge_kappa", "self_preference"),
    *("mcc", "matthews_correlation"),
}
"""May lie between 0 and 1 and are no shares of anything."""
_PROBES = "/faithfulness/"
_MACRO = "macro_"
_UNREAD = "unread_"
"""Of one way to read an answer, where there are several."""


def higher_is_better(metric: str) -> bool:
    """Whether more is better: not for losses, errors and shares of what went wrong.

    Args:
        metric: such as `eval/loss`, `eval/<task>/accuracy` or `eval/<task>/macro_accuracy`.
    """
    name = metric.rpartition("/")[2].removeprefix(_MACRO)
    if name.endswith((LOWER, HIGHER)):
        return name.endswith(HIGHER)
    return name not in _LOWER and not name.startswith(_UNREAD)


def has_better_side(metric: str) -> bool:
    """Whether more or less of it is better: not for lengths, for a judge's habits and for probes of reasoning."""
    return metric.rpartition("/")[2].removeprefix(_MACRO) not in _NEITHER and _PROBES not in metric


def improvement(metric: str, base: float, adapter: float) -> float:
    """By how much the adapter is better than the base, in the metric's own unit; negative where it is worse."""
    return adapter - base if higher_is_better(metric) else base - adapter


def is_share(metric: str, values: Sequence[float]) -> bool:
    """Whether figures are shares of something: written in percent, and between 0 and 1 whatever chance does.

    Args:
        metric: as `higher_is_better` takes it.
        values: of models or of questions; none is no share.
    """
    name = metric.rpartition("/")[2].removeprefix(_MACRO)
    return name not in _NO_SHARES and bool(values) and all(0 <= value <= 1 for value in values)


def least_possible(metric: str) -> float:
    """Below which no figure can be, nor its interval: 0 for lengths, losses and times, minus infinity for most.

    Args:
        metric: as `higher_is_better` takes it.
    """
    name = metric.rpartition("/")[2].removeprefix(_MACRO)
    return 0.0 if name in _NEVER_BELOW_ZERO else -math.inf
