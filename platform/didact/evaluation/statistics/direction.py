"""Which way is better."""

_LOWER = frozenset(
    (
        *("loss", "perplexity", "byte_perplexity", "word_perplexity", "bits_per_byte", "ece", "brier", "brier_score"),
        # Of lm-eval and its kin: errors of translation, of recognised speech and of numbers.
        *("ter", "wer", "cer", "mer", "mae", "mse", "rmse", "edit_distance"),
        *("lost", "flipped", "unread", "strict_unread", "unmarked", "cut", "problems", "refused", "seconds", "latency"),
    )
)
_NEITHER = frozenset(("answer_tokens", "answer_length", "first_won", "longer_won", "length_correlation", "agreement"))
LOWER, HIGHER = "_lower_is_better", "_higher_is_better"
"""Endings of names that would say otherwise without them, such as a metric of one's own lm-eval task."""
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
