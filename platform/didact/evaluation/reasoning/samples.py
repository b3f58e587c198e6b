"""Several answers to one question: the most frequent one, and how often one of k is right."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from didact.evaluation.questions import Score

_VOTE_OF = 3
"""A vote of fewer decides nothing."""


def of_samples(scores: Sequence[Score], metric: str, same: Callable[[str], str] | None) -> Score:
    """One score of answers that were drawn independently.

    The values are those of the answer that most of them give (self-consistency, Wang et al., 2023; the earliest of
    equals), `unread` is the share of all that could not be read, `agreement` the share that gives that answer. Where an
    answer is right or wrong, `pass_at_k` says how probably one of k is right, and `maj_at_k` whether the vote of the
    first k is; k goes up in powers of two to all.

    Programs and free texts have no vote, as in Chen et al. (2021): no two are the same, and what their scorer found in
    them is the right answer itself, so a vote over it would know what is right. Their values are means over samples.

    Args:
        scores: one an answer, in order.
        metric: the value that says whether an answer is right, or how good it is.
        same: answers that were read are the same one where this makes the same text of them; None: there is no vote.
    """
    if len(scores) == 1:
        return scores[0]
    if problem := next((each.problem for each in scores if each.problem is not None), None):
        return Score(problem=problem)
    if same is None:
        return Score({**_means(scores), **_passes(scores, metric)}, scores[0].extracted, note=scores[0].note)
    winner, votes = _vote(scores, same)
    chosen = scores[winner]
    unread = [each.values["unread"] for each in scores if "unread" in each.values]
    more = {"unread": sum(unread) / len(unread)} if unread else {}
    if metric == "accuracy":
        more |= _passes(scores, metric)
        more |= {
            f"maj_at_{k}": scores[_vote(scores[:k], same)[0]].values[metric]
            for k in _steps(len(scores))
            if k >= _VOTE_OF
        }
    values = {**chosen.values, **more, "agreement": votes / len(scores)}
    return Score(values, chosen.extracted, note=chosen.note)


def _means(scores: Sequence[Score]) -> dict[str, float]:
    names = dict.fromkeys(name for each in scores for name in each.values)
    found = {name: [each.values[name] for each in scores if name in each.values] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _passes(scores: Sequence[Score], metric: str) -> dict[str, float]:
    if metric != "accuracy":
        return {}
    right = sum(each.values[metric] == 1 for each in scores)
    return {f"pass_at_{k}": pass_at(k, len(scores), right) for k in _steps(len(scores))}


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
