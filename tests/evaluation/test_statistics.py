"""Intervals, averages and corrections against known values, and against what they promise of chance."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from didact.evaluation import statistics
from didact.evaluation.statistics import (
    agreement,
    averages,
    calibration,
    corrected,
    has_better_side,
    higher_is_better,
    is_share,
    macro_count,
    mean_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (7, 20), (499, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_scipys(right: int, count: int, level: float) -> None:
    known = stats.binomtest(right, count).proportion_ci(level, method="wilson")
    assert wilson_interval(right, count, level) == pytest.approx((known.low, known.high), abs=1e-12)


def test_interval_of_scores_is_students() -> None:
    values = [0.1, 0.4, 0.35, 0.8, 0.95, 0.2]
    known = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.standard_error == pytest.approx(stats.sem(values))
    assert (found.count, found.clusters) == (6, 6)


def test_clustered_error_is_that_of_the_cluster_means_where_clusters_are_equal() -> None:
    # With clusters of one size the mean of all is the mean of the clusters' means, each drawn alone.
    values = np.array([[0.0, 1.0, 1.0], [0.2, 0.1, 0.3], [1.0, 0.9, 1.0], [0.5, 0.5, 0.0]])
    labels = [name for name in "abcd" for _ in range(3)]
    found = mean_interval(values.ravel().tolist(), labels)
    assert found.standard_error == pytest.approx(stats.sem(values.mean(axis=1)))
    known = stats.ttest_1samp(values.mean(axis=1), 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.clusters == 4


def test_clustered_error_of_uneven_clusters_by_hand() -> None:
    # Mean 0.5; sums of deviations by passage: 1.0, -0.5, -0.5; sqrt((1 + 0.25 + 0.25) * 3/2) / 4.
    found = mean_interval([1.0, 1.0, 0.0, 0.0], ["p", "p", "q", "r"])
    assert found.standard_error == pytest.approx(math.sqrt(1.5 * 1.5) / 4)


def test_answers_that_are_all_right_keep_an_interval() -> None:
    assert mean_interval([1.0] * 30).low == pytest.approx(wilson_interval(30, 30)[0])
    # Three passages of ten questions say as much as three questions, for all that can be known.
    assert mean_interval([1.0] * 30, [index // 10 for index in range(30)]).low < wilson_interval(3, 3)[0]


def test_lengths_that_are_all_one_are_no_shares() -> None:
    found = mean_interval([1.0] * 30, share=False)
    assert (found.low, found.high) == (1.0, 1.0)
    assert not has_better_side("eval/exam/confidence") and has_better_side("eval/exam/ece")


def test_one_passage_says_nothing_of_chance() -> None:
    found = mean_interval([0.1, 0.4, 0.3], ["p", "p", "p"])
    assert (found.low, found.high, found.standard_error) == (-math.inf, math.inf, math.inf)
    right = mean_interval([1.0, 0.0], ["p", "p"])
    assert (right.low, right.high) == (0.0, 1.0)


def test_macro_and_weighted_averages_may_disagree() -> None:
    values, groups = [1.0] * 90 + [0.0] * 10, ["easy"] * 90 + ["hard"] * 10
    found = averages(values, groups)
    assert (found.weighted.value, found.macro.value) == pytest.approx((0.9, 0.5))
    assert [(name, each.value, each.count) for name, each in found.groups.items()] == [
        ("easy", 1.0, 90),
        ("hard", 0.0, 10),
    ]


def test_macro_error_adds_up_the_groups() -> None:
    values = {"a": [0.1, 0.5, 0.9, 0.3], "b": [0.7, 0.2, 0.6]}
    found = averages([*values["a"], *values["b"]], ["a"] * 4 + ["b"] * 3)
    errors = [stats.sem(each) for each in values.values()]
    assert found.macro.standard_error == pytest.approx(math.hypot(*errors) / 2)
    # Two groups of means, unequal spread: Welch's interval of a sum is that of a difference with one side negated.
    welch = stats.ttest_ind(values["a"], [-each for each in values["b"]], equal_var=False).confidence_interval(0.95)
    assert (found.macro.low, found.macro.high) == pytest.approx((welch.low / 2, welch.high / 2))


def test_a_group_of_one_question_takes_the_spread_of_the_others() -> None:
    found = averages([0.0, 1.0, 0.5, 0.4], ["a", "a", "a", "b"])
    assert found.macro.value == pytest.approx((0.5 + 0.4) / 2)
    spread = np.var([0.0, 1.0, 0.5], ddof=1)
    assert found.macro.standard_error == pytest.approx(math.sqrt(spread / 3 + spread) / 2)
    alone = averages([0.0, 1.0], ["a", "b"]).macro
    assert (alone.value, alone.low, alone.high) == (0.5, -math.inf, math.inf)


@pytest.mark.parametrize(("values", "value"), [([0.0] * 10, 0.0), ([1.0] * 10, 1.0), ([1.0] * 4 + [0.0] * 6, 0.5)])
def test_a_macro_average_of_equal_answers_has_a_width(values: list[float], value: float) -> None:
    groups = ["a"] * 4 + ["b"] * 6
    found = averages(values, groups, share=True).macro
    assert macro_count(groups) == pytest.approx(9.6) and found.value == value
    assert (found.low, found.high) == pytest.approx(wilson_interval(value * 9.6, 9.6))
    other = averages([7 * each - 2 for each in values], groups).macro
    assert (other.low, other.high) == (-math.inf, math.inf), "of what is no share nothing is known"


def test_a_passage_over_two_groups_widens_their_average() -> None:
    values, groups = [0.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b"]
    apart, shared = averages(values, groups), averages(values, groups, ["p", "q", "p", "q"])
    assert shared.macro.standard_error == pytest.approx(apart.macro.standard_error * math.sqrt(2))


@pytest.mark.parametrize(
    ("p_values", "holm", "hochberg"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02], [0.02, 0.04, 0.04, 0.02]),
        ([0.5, 0.9], [1.0, 1.0], [0.9, 0.9]),
        ([0.02], [0.02], [0.02]),
    ],
)
def test_corrections(p_values: Sequence[float], holm: Sequence[float], hochberg: Sequence[float]) -> None:
    named = {f"task {index}": value for index, value in enumerate(p_values)}
    assert list(corrected(named)) == list(named)
    assert list(corrected(named).values()) == pytest.approx(holm)
    assert list(corrected(named, "benjamini_hochberg").values()) == pytest.approx(hochberg)
    assert corrected({}) == {}


def test_holm_seldom_claims_anything_of_nothing() -> None:
    draws = np.random.default_rng(0).random((2000, 20))
    claims = [min(corrected({str(i): p for i, p in enumerate(row)}).values()) < 0.05 for row in draws.tolist()]
    assert 0.035 < np.mean(claims) < 0.06
    assert (draws.min(axis=1) < 0.05).mean() > 0.6


def test_calibration_by_hand() -> None:
    found = calibration([0.95, 0.85, 0.85, 0.25], [1, 1, 0, 0])
    assert [(each.low, each.count, each.accuracy) for each in found.bins] == [
        pytest.approx(each) for each in ((0.2, 1, 0.0), (0.8, 2, 0.5), (0.9, 1, 1.0))
    ]
    assert found.error == pytest.approx((0.25 + 2 * 0.35 + 0.05) / 4)
    assert found.largest == pytest.approx(0.35)
    assert found.brier == pytest.approx((0.05**2 + 0.15**2 + 0.85**2 + 0.25**2) / 4)


def test_calibration_bins_of_equal_size() -> None:
    sure = np.linspace(0.6, 1.0, 40)
    found = calibration(sure.tolist(), [1] * 40, bins=4, spaced="by_count")
    assert [each.count for each in found.bins] == [10, 10, 10, 10]
    assert found.error == pytest.approx(0.2)
    assert calibration([0.5] * 4, [1, 1, 0, 0], spaced="by_count").error == 0.0


def test_a_model_that_knows_how_sure_to_be_is_calibrated() -> None:
    random = np.random.default_rng(0)
    sure = random.random(20_000)
    right = random.random(20_000) < sure
    assert calibration(sure.tolist(), right.tolist()).error < 0.015
    assert calibration(sure.tolist(), (~right).tolist()).error > 0.45


def test_kappa_by_hand() -> None:
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement(first, second)
    assert (found.equal, found.kappa, found.count) == (pytest.approx(0.7), pytest.approx(0.4), 50)
    assert (found.low, found.high) == pytest.approx(wilson_interval(35, 50))
    assert found.kappa_low is not None and found.kappa_high is not None
    assert found.kappa_low < 0.4 < found.kappa_high


def test_weighted_kappa_forgives_near_verdicts() -> None:
    first, second = [1, 2, 3, 4, 5, 1, 2, 3], [2, 2, 3, 5, 5, 1, 3, 3]
    plain, linear, squared = (agreement(first, second, weights=each).kappa for each in ("none", "linear", "quadratic"))
    # By the definition 1 - sum(observed distance) / sum(expected distance) over all pairs of verdicts.
    for kappa, power in ((linear, 1), (squared, 2)):
        expected = np.mean([abs(a - b) ** power for a in first for b in second])
        assert kappa == pytest.approx(
            1 - np.mean([abs(a - b) ** power for a, b in zip(first, second, strict=True)]) / expected
        )
    assert plain is not None and linear is not None and squared is not None
    assert plain < linear < squared


def test_the_interval_of_kappa_holds_the_true_one() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(300):
        first = random.integers(3, size=200)
        second = np.where(random.random(200) < 0.6, first, random.integers(3, size=200))
        found = agreement(first.tolist(), second.tolist())
        assert found.kappa_low is not None and found.kappa_high is not None
        held += found.kappa_low <= 0.6 <= found.kappa_high
    assert 0.92 <= held / 300 <= 0.98


def test_kappa_of_one_verdict_only_says_nothing() -> None:
    found = agreement([1, 1, 1], [1, 1, 1])
    assert (found.equal, found.kappa, found.kappa_low, found.kappa_high) == (1.0, None, None, None)


@pytest.mark.parametrize("spread", [0.0, 0.35])
def test_intervals_hold_the_true_mean_as_often_as_they_say(spread: float) -> None:
    # 40 passages of 1 to 5 questions; passages differ in how hard they are by `spread`.
    random, held, alone = np.random.default_rng(1), 0, 0
    for _ in range(400):
        sizes = random.integers(1, 6, size=40)
        hard = 0.5 + spread * random.choice([-1, 1], size=40)
        labels = np.repeat(np.arange(40), sizes)
        right = (random.random(labels.size) < hard[labels]).astype(float).tolist()
        with_passages, without = mean_interval(right, labels.tolist()), mean_interval(right)
        held += with_passages.low <= 0.5 <= with_passages.high
        alone += without.low <= 0.5 <= without.high
    assert 0.92 <= held / 400 <= 0.985
    if spread:
        assert alone / 400 < 0.86  # what clusters are for


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        ("eval/loss", False),
        ("eval/mmcu/macro_loss", False),
        ("eval/mmcu/unread", False),
        ("eval/mmcu/perplexity", False),
        ("eval/mmcu/ece", False),
        ("eval/mmcu/macro_accuracy", True),
        ("eval/loss/accuracy", True),
        ("score", True),
    ],
)
def test_which_way_is_better(metric: str, higher: bool) -> None:
    assert higher_is_better(metric) is higher


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_interval([]), "at least one number"),
        (lambda: mean_interval([0.5, math.nan]), "question 1 has nan"),
        (lambda: mean_interval([0.5, 1.0], ["a"]), "1 labels for 2 questions"),
        (lambda: mean_interval([0.5, 1.0], level=95), "level: found 95"),
        (lambda: averages([0.5, 1.0], ["a"]), "groups: found 1 labels for 2"),
        (lambda: wilson_interval(3, 2), "3 correct of 2"),
        (lambda: corrected({"gsm8k": 1.5}), "p-value of gsm8k: found 1.5"),
        (lambda: corrected({"gsm8k": math.nan}), "p-value of gsm8k: found nan"),
        (lambda: corrected({}, "bonferroni"), "expected holm or benjamini_hochberg"),  # type: ignore[arg-type]
        (lambda: calibration([0.5, 1.2], [1, 0]), "question 1 has 1.2"),
        (lambda: calibration([0.5], [0.5]), "expected 1 or 0"),
        (lambda: calibration([0.5], [1], bins=0), "bins: found 0"),
        (lambda: calibration([0.5], [1, 0]), "1 values before and 2 after"),
        (lambda: agreement(["a"], []), "1 and 0 verdicts"),
        (lambda: agreement(["a"], ["b"], weights="linear"), "only numbers lie near or far"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_the_room_hands_on_all_its_names() -> None:
    assert all(getattr(statistics, name) for name in statistics.__all__)


@pytest.mark.parametrize(
    "values", [[0.3, 0.7], [0.0, 1.0, 1.0, 0.9], [0.5, 0.5, 0.5, 0.4], [0.02, 0.0, 0.0], [0.99, 1.0, 1.0, 1.0]]
)
def test_the_interval_of_a_share_stays_between_0_and_1(values: list[float]) -> None:
    found, plain = mean_interval(values, share=True), mean_interval(values)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.value, found.standard_error) == (plain.value, plain.standard_error)
    several = averages(values * 2, ["a"] * len(values) + ["b"] * len(values), share=True)
    assert all(0 <= each.low <= each.high <= 1 for each in (several.macro, several.weighted, *several.groups.values()))


def test_far_from_its_ends_a_share_has_the_interval_of_any_mean() -> None:
    values = (np.random.default_rng(0).random(400) * 0.4 + 0.3).tolist()
    found, plain = mean_interval(values, share=True), mean_interval(values)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-3)


@pytest.mark.parametrize("metric", ["eval/loss", "eval/mine/answer_length", "eval/x/macro_ece"])
def test_what_is_no_share_is_told_by_its_name(metric: str) -> None:
    assert not is_share(metric, [0.2, 0.4]) and is_share("eval/mine/score", [0.2, 1.0])
    assert not is_share("eval/mine/score", [7.0, 0.5]) and not is_share("eval/mine/score", [])
