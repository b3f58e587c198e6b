"""Several answers to one question: the most frequent one, and how often one of k is right."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from didact.evaluation.questions import Score

_VOTE_OF = 3
"""A vote of fewer decides nothing."""


def of_samples(scores: Sequence[Score], metric: str, same: Callable[[str], str]) -> Score:
    """One score of answers that were drawn independently.

    The values are those of the answer that most of them give (self-consistency, Wang et al., 2023; the earliest of
    equals), `unread` is the share of all that could not be read, `agreement` the share that gives that answer. Where an
    answer is right or wrong, `pass_at_k` says how probably one of k is right, and `maj_at_k` whether the vote of the
    first k is; k goes up in powers of two to all.

    Args:
        scores: one an answer, in order.
        metric: the value that says whether an answer is right, or how good it is.
        same: answers that were read are the same one where this makes the same text of them.
    """
    if len(scores) == 1:
        return scores[0]
    if problem := next((each.problem for each in scores if each.problem is not None), None):
        return Score(problem=problem)
    winner, votes = _vote(scores, same)
    chosen = scores[winner]
    unread = [each.values["unread"] for each in scores if "unread" in each.values]
    more = {"unread": sum(unread) / len(unread)} if unread else {}
    if metric == "accuracy":
        right = sum(each.values[metric] == 1 for each in scores)
        more |= {f"pass_at_{k}": pass_at(k, len(scores), right) for k in _steps(len(scores))}
        more |= {
            f"maj_at_{k}": scores[_vote(scores[:k], same)[0]].values[metric]
            for k in _steps(len(scores))
            if k >= _VOTE_OF
        }
    values = {**chosen.values, **more, "agreement": votes / len(scores)}
    return Score(values, chosen.extracted, note=chosen.note)


def pass_at(k: int, num_samples: int, num_right: int) -> float:
    """How probable it is that of k answers one is right; the unbiased estimate of Chen et al. (2021).

    Args:
        k: at most `num_samples`.
        num_samples: answers that were drawn.
        num_right: those that are right.

    Raises:
        ValueError: not `1 <= k <= num_samples`, or more right ones than answers.
    """
    if not 1 <= k <= num_samples or not 0 <= num_right <= num_samples:
        raise ValueError(f"found k={k} and {num_right} right of {num_samples}; expected k and right ones up to these")
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def _vote(scores: Sequence[Score], same: Callable[[str], str]) -> tuple[int, int]:
    """Which answer most give, by its first place, and how many give it; the first one where none could be read."""
    keys = [None if each.extracted is None else same(each.extracted) for each in scores]
    counts = Counter(key for key in keys if key is not None)
    if not counts:
        return 0, 0
    key, votes = counts.most_common(1)[0]  # of equals the one that came first
    return keys.index(key), votes


def _steps(most: int) -> list[int]:
    powers = [2**exponent for exponent in range(most.bit_length()) if 2**exponent < most]
    return [*powers, most]
