import math

import pytest

from didact.errors import SpecError
from didact.evaluation import EvalReport, ModelFacts, judge_gate

LOSS, ACCURACY = "eval/loss", "eval/chain_sum/accuracy"


def report(loss: tuple[float, float] = (2.0, 1.5), accuracy: tuple[float, float] = (0.5, 0.6)) -> EvalReport:
    sides = {side: {LOSS: loss[n], ACCURACY: accuracy[n]} for n, side in enumerate(("base", "adapter"))}
    return EvalReport({side: ModelFacts(side) for side in sides}, sides, {LOSS: 4, ACCURACY: 10})


@pytest.mark.parametrize(
    ("least", "passed"),
    [
        ({}, True),
        ({ACCURACY: 0.1}, True),  # 0.6 - 0.5 < 0.1 in binary
        ({ACCURACY: 0.1001}, False),
        ({LOSS: 0.5}, True),
        ({LOSS: 0.51}, False),
        ({LOSS: 0.5, ACCURACY: 0.1}, True),
        ({LOSS: 0.6, ACCURACY: 0.1}, False),
        ({ACCURACY: math.nan}, False),
    ],
)
def test_the_least_improvement_decides(least: dict[str, float], passed: bool) -> None:
    result = judge_gate(report(), least)
    assert result.passed is passed
    assert len(result.lines) == len(least)


def test_a_negative_least_allows_a_small_loss_of_quality() -> None:
    worse = report(accuracy=(0.5, 0.45))
    assert judge_gate(worse, {ACCURACY: -0.05}).passed
    assert not judge_gate(worse, {ACCURACY: 0.0}).passed


@pytest.mark.parametrize("loss", [(2.0, math.nan), (math.nan, 1.0), (math.inf, math.inf)])
def test_undefined_figures_never_pass(loss: tuple[float, float]) -> None:
    assert not judge_gate(report(loss=loss), {LOSS: -100.0}).passed


def test_an_adapter_that_diverged_does_not_pass() -> None:
    assert not judge_gate(report(loss=(2.0, math.inf)), {LOSS: 0.0}).passed


def test_lines_say_what_was_found_and_asked_for() -> None:
    (loss, accuracy) = judge_gate(report(), {LOSS: 0.6, ACCURACY: 0.1}).lines
    assert loss == "eval/loss: base 2.0000, adapter 1.5000, gain +0.5000, asked for at least 0.6000: FAIL"
    assert accuracy.endswith(": pass")


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"'eval/gsm8k/accuracy'.*eval/loss, eval/chain_sum/accuracy"):
        judge_gate(report(), {"eval/gsm8k/accuracy": 0.1})
    with pytest.raises(SpecError, match=r"did you mean 'eval/chain_sum/accuracy'\? Known .* the same command"):
        judge_gate(report(), {"eval/chain_sum/acuracy": 0.1})


def test_a_base_alone_cannot_pass_a_gate() -> None:
    alone = EvalReport({"base": ModelFacts("b")}, {"base": {LOSS: 1.0}}, {LOSS: 1})
    with pytest.raises(SpecError, match="base alone"):
        judge_gate(alone, {LOSS: 0.0})
    assert judge_gate(alone, {}).passed
