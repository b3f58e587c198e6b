"""Two models on the same questions: known values, and what the intervals promise of chance."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import optimize, stats

from didact.evaluation.statistics import (
    PairedDifference,
    clustered_difference,
    compare,
    macro_difference,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    questions_needed,
    smallest_difference,
)

Comparison = Callable[..., PairedDifference]


def answers(both: int, won: int, lost: int, neither: int) -> tuple[list[float], list[float]]:
    """Right and wrong answers of two models with these counts."""
    before = [1.0] * both + [0.0] * won + [1.0] * lost + [0.0] * neither
    after = [1.0] * both + [1.0] * won + [0.0] * lost + [0.0] * neither
    return before, after


def score_limits(won: int, lost: int, count: int) -> tuple[float, float]:
    """Tango's interval by its definition: the likelihood under each difference is maximised numerically."""

    def statistic(difference: float) -> float:
        def negative(lost_share: float) -> float:
            cells = (
                (won, lost_share + difference),
                (lost, lost_share),
                (count - won - lost, 1 - 2 * lost_share - difference),
            )
            return -sum(number * math.log(max(share, 1e-300)) for number, share in cells)

        least, most = max(0.0, -difference), (1 - difference) / 2
        share = optimize.minimize_scalar(negative, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
        variance = (2 * share + difference - difference**2) / count
        return ((won - lost) / count - difference) / math.sqrt(variance)

    reach, middle = stats.norm.ppf(0.975), (won - lost) / count
    low = optimize.brentq(lambda at: statistic(at) - reach, -1 + 1e-6, middle - 1e-9)
    return low, optimize.brentq(lambda at: statistic(at) + reach, middle + 1e-9, 1 - 1e-6)


@pytest.mark.parametrize(("both", "won", "lost", "neither"), [(36, 12, 2, 0), (40, 8, 5, 20), (0, 3, 1, 100)])
def test_right_and_wrong_answers(both: int, won: int, lost: int, neither: int) -> None:
    found = mcnemar(*answers(both, won, lost, neither))
    count = both + won + lost + neither
    assert found.difference == pytest.approx((won - lost) / count)
    assert (found.higher, found.lower, found.count, found.clusters) == (won, lost, count, count)
    assert found.mean_square == pytest.approx((won + lost) / count)
    assert found.p_value == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    exact = stats.binomtest(won, won + lost).proportion_ci(0.95, method="exact")
    changed, score = (won + lost) / count, score_limits(won, lost, count)
    expected = min(score[0], (2 * exact.low - 1) * changed), max(score[1], (2 * exact.high - 1) * changed)
    assert (found.low, found.high) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("clusters", [1, 2])
@pytest.mark.parametrize("count", [4, 5, 6, 8, 20])
def test_interval_and_p_value_show_the_same_differences(count: int, clusters: int) -> None:
    labels = [number // clusters for number in range(count)]
    for won in range(count + 1):
        for lost in range(count + 1 - won):
            found = mcnemar(*answers(0, won, lost, count - won - lost), labels)
            assert found.shown is (found.p_value < 0.05), (won, lost)
            assert -1 <= found.low <= found.difference <= found.high <= 1


def test_four_answers_of_five_show_nothing() -> None:
    found = mcnemar(*answers(0, 4, 0, 1))
    assert (found.difference, found.p_value, found.shown) == (0.8, 0.125, False)
    # Clopper and Pearson: of 4 changes all won, at least 0.025 ** (1 / 4) are; as a share of the 5 questions.
    assert found.low == pytest.approx((2 * 0.025**0.25 - 1) * 4 / 5)
    grouped = macro_difference(*answers(0, 4, 0, 1), ["a", "a", "b", "b", "b"])
    assert grouped.value == pytest.approx(5 / 6) and grouped.low < 0 < grouped.high <= 1
    assert smallest_difference(5, 1.0).difference == math.inf, "five of five are one in sixteen"
    assert smallest_difference(6, 1.0).difference > 0.99


def test_answers_of_which_none_changed_prove_little() -> None:
    reach = stats.norm.ppf(0.975) ** 2
    found = mcnemar(*answers(5, 0, 0, 15))
    assert (found.low, found.high) == pytest.approx((-reach / (20 + reach), reach / (20 + reach)))
    assert found.p_value == 1.0 and not found.shown
    scores = clustered_difference([0.3] * 20, [0.3] * 20)
    assert (scores.low, scores.high) == pytest.approx((found.low, found.high))


def test_every_answer_won_ends_at_one() -> None:
    found = mcnemar([0.0] * 12, [1.0] * 12)
    assert found.high == 1.0 and found.low == pytest.approx(2 * 0.025 ** (1 / 12) - 1) and found.shown
    assert mcnemar([1.0] * 12, [0.0] * 12).low == -1.0


def test_scores_are_students_paired() -> None:
    before, after = [0.2, 0.5, 0.9, 0.4, 0.6], [0.4, 0.6, 0.8, 0.9, 0.7]
    known = stats.ttest_rel(after, before)
    interval = known.confidence_interval(0.95)
    found = compare(before, after)
    assert found.method == "clustered"
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(known.pvalue)


def test_scores_of_passages_are_those_of_the_passages_means() -> None:
    before, after = [0.1, 0.3, 0.5, 0.7, 0.2, 0.2], [0.3, 0.5, 0.4, 0.8, 0.6, 0.8]
    found = compare(before, after, ["p", "p", "q", "q", "r", "r"])
    known = stats.ttest_1samp([0.2, 0.0, 0.5], 0.0)
    assert found.p_value == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval(0.95)))
    assert found.effective < found.count


def test_losses_may_be_of_any_size() -> None:
    found = compare([2.5, 3.0, 2.8, 3.3], [2.1, 2.9, 2.5, 3.0])
    assert found.difference == pytest.approx(-0.275) and found.high < 0 and found.shown


def test_one_passage_says_nothing_of_the_difference() -> None:
    scores = compare([0.1, 0.4], [0.3, 0.9], ["p", "p"])
    assert (scores.low, scores.high, scores.p_value) == (-math.inf, math.inf, 1.0)
    rights = compare([0.0, 0.0], [1.0, 1.0], ["p", "p"])
    assert (rights.low, rights.high, rights.p_value) == (-1.0, 1.0, 1.0)


def test_bootstrap_repeats_itself_and_agrees_with_student() -> None:
    random = np.random.default_rng(0)
    before = random.random(200)
    after = (before + random.normal(0.03, 0.2, size=200)).tolist()
    first, again = (paired_bootstrap(before.tolist(), after) for _ in range(2))
    student = clustered_difference(before.tolist(), after)
    assert first == again
    assert first != paired_bootstrap(before.tolist(), after, seed=1)
    assert (first.low, first.high) == pytest.approx((student.low, student.high), abs=0.002)
    assert first.p_value == pytest.approx(student.p_value, abs=0.02)


def test_bootstrap_draws_whole_passages() -> None:
    # All questions of a passage change alike: 20 passages say no more than 20 questions would.
    change = np.repeat(np.tile([0.4, -0.2], 10), 30)
    labels = np.repeat(np.arange(20), 30).tolist()
    before = np.full(change.size, 0.3)
    whole = paired_bootstrap(before.tolist(), (before + change).tolist(), labels, resamples=2000)
    single = paired_bootstrap(before.tolist(), (before + change).tolist(), resamples=2000)
    assert whole.high - whole.low > 4 * (single.high - single.low)
    assert paired_bootstrap([0.1, 0.2], [0.3, 0.3], ["p", "p"]).low == -math.inf


@pytest.mark.parametrize("method", [compare, paired_bootstrap])
def test_intervals_hold_the_true_difference_as_often_as_they_say(method: Comparison) -> None:
    random, held = np.random.default_rng(2), 0
    options = {} if method is compare else {"resamples": 400}
    for _ in range(300):
        labels = np.repeat(np.arange(50), random.integers(1, 4, size=50))
        shift = random.normal(0.05, 0.15, size=50)[labels]
        before = random.random(labels.size)
        after = before + shift + random.normal(0, 0.1, size=labels.size)
        found = method(before.tolist(), after.tolist(), labels.tolist(), **options)
        held += found.low <= 0.05 <= found.high
    assert 0.91 <= held / 300 <= 0.985


@pytest.mark.parametrize(("won", "lost"), [(0.1, 0.1), (0.02, 0.02), (0.15, 0.05)])
def test_intervals_of_right_and_wrong_hold_the_true_difference(won: float, lost: float) -> None:
    random, held, claimed = np.random.default_rng(3), 0, 0
    for counts in random.multinomial(80, (won, lost, 1 - won - lost), size=400):
        found = mcnemar(*answers(0, int(counts[0]), int(counts[1]), int(counts[2])))
        held += found.low <= won - lost <= found.high
        claimed += found.p_value < 0.05
    assert held / 400 >= 0.93
    assert won != lost or claimed / 400 <= 0.05  # an exact test never errs more often


def test_questions_needed_by_the_formula() -> None:
    # Miller (2024), section 5: n = (z_a/2 + z_b)^2 w^2 / d^2, where the variance w^2 is mean_square - d^2 for both.
    found = questions_needed(0.03, 1 / 9, right_or_wrong=False)
    assert found.questions == pytest.approx((1.95996 + 0.84162) ** 2 / 9 / 0.03**2, rel=0.01)
    # Discordance 0.2, difference 0.05, 80 %.
    needed = questions_needed(0.05, 0.2).questions
    assert needed == 665
    assert questions_needed(0.05, 0.2, design_effect=2.0).questions in (2 * needed - 1, 2 * needed)
    # Connor (1987): n * d - 1 is z_a/2 * sqrt(n * w) + z_b * sqrt(n * (w - d^2)), with the 1 for continuity.
    reach = 1.95996 * math.sqrt(0.2) + 0.84162 * math.sqrt(0.2 - 0.05**2)
    assert needed * 0.05 - 1 == pytest.approx(reach * math.sqrt(needed), rel=0.002)


def test_smallest_difference_is_the_inverse() -> None:
    for count in (50, 500, 5000):
        found = smallest_difference(count, 0.2).difference
        assert questions_needed(found, 0.2).questions in (count, count + 1)
    scores = smallest_difference(200, 0.04, right_or_wrong=False).difference
    assert questions_needed(scores, 0.04, right_or_wrong=False).questions in (200, 201)


def test_few_questions_show_nothing_at_all() -> None:
    assert smallest_difference(3, 0.2).difference == math.inf
    # Below the discordance it takes, all changes must point one way.
    assert smallest_difference(20, 0.01).difference > 0.15


@pytest.mark.parametrize("count", [60, 250])
def test_the_smallest_difference_is_shown_as_often_as_it_says(count: int) -> None:
    gain, discordance = smallest_difference(count, 0.3).difference, 0.3
    random, shown = np.random.default_rng(4), 0
    shares = ((discordance + gain) / 2, (discordance - gain) / 2, 1 - discordance)
    for counts in random.multinomial(count, shares, size=400):
        shown += mcnemar(*answers(0, int(counts[0]), int(counts[1]), int(counts[2]))).shown
    assert 0.73 <= shown / 400 <= 0.87


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: compare([1.0], [1.0, 0.0]), "1 values before and 2 after"),
        (lambda: compare([], []), "before: found shape"),
        (lambda: compare([1.0], [math.inf]), "after: question 0 has inf"),
        (lambda: mcnemar([0.5], [1.0]), "expected 0 or 1"),
        (lambda: compare([1.0, 0.0], [1.0, 0.0], ["p"]), "1 labels for 2 questions"),
        (lambda: paired_bootstrap([1.0], [0.0], resamples=0), "resamples: found 0"),
        (lambda: questions_needed(0.0, 0.2), "difference: found 0"),
        (lambda: questions_needed(1.5, 0.2), "differ by 1 at most"),
        (lambda: questions_needed(0.1, 0.0), "mean_square: found 0"),
        (lambda: questions_needed(0.1, 0.2, power=0.2), "power: found 0.2"),
        (lambda: questions_needed(0.1, 0.2, design_effect=0.5), "design_effect: found 0.5"),
        (lambda: smallest_difference(0, 0.2), "questions: found 0"),
        (lambda: smallest_difference(10, 0.2, level=1.0), "level: found 1.0"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(("passages", "shown"), [(2, False), (4, False), (6, False), (7, True), (20, True)])
def test_a_few_equal_gains_have_a_width_and_the_p_value_of_as_many_coins(passages: int, shown: bool) -> None:
    labels = [number // 2 for number in range(2 * passages)]
    before, after = [0.25, 0.5] * passages, [0.5, 0.5] * passages
    found = clustered_difference(before, after, labels)
    coins, student = 2.0 ** (1 - passages), 2 * float(stats.t.sf(math.sqrt(passages), passages - 1))
    assert found.p_value == pytest.approx(max(coins, student))
    assert found.shown is (found.p_value < 0.05)
    assert (found.low, found.high) == pytest.approx((2 * 0.125 - found.high, 2 * 0.125 - found.low))
    assert found.shown is shown and found.high - found.low > 0.01
    down = clustered_difference(after, before, labels)
    assert (down.low, down.high) == pytest.approx((-found.high, -found.low))
    assert clustered_difference([0.25] * passages, [0.5] * passages).shown is shown


def test_equal_gains_in_every_passage_leave_no_certainty_to_right_answers_either() -> None:
    found = mcnemar([0, 0, 1, 0], [1, 0, 1, 1], ["a", "a", "b", "b"])
    assert (found.difference, found.p_value, found.shown) == (0.5, 0.5, False)


@pytest.mark.parametrize(("before", "scale"), [([5.0, 7.0, 8.0], 3.0), ([7.0, 7.0, 7.0], 7.0), ([0.2, 0.4, 0.4], 1.0)])
def test_a_few_equal_scores_do_not_prove_that_models_are_equal(before: list[float], scale: float) -> None:
    found, shares = clustered_difference(before, before), mcnemar([0, 0, 0], [0, 0, 0])
    assert (found.low, found.high) == pytest.approx((scale * shares.low, scale * shares.high))


def test_equal_shares_have_a_width() -> None:
    found = mean_interval([0.3] * 5)
    assert found.low < 0.1 and found.high > 0.6
    assert mean_interval([0.3] * 500).high < 0.35
