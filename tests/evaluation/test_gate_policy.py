"""A gate of several checks: each line says what was found, and what nobody measured fails."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from didact.errors import SpecError
from didact.evaluation import EvalReport, Given, ModelFacts, QuestionFacts, TaskFacts, compare_task, judge_policy
from didact.spec import GateSpec, RegisterSpec, validate

ACCURACY = "eval/sums/accuracy"
Answers = Mapping[str, Sequence[float]]


def report(answers: Answers, *, tokens: Mapping[str, int] | None = None, metric: str = "accuracy") -> EvalReport:
    """A report of one task, from each model's values."""
    count = len(answers["base"])
    tokens = tokens or {}
    questions = tuple(
        QuestionFacts(
            "sums",
            str(number),
            f"question {number}",
            "4",
            {
                model: Given(("4",), {metric: given[number]}, num_tokens=tokens.get(model, 2))
                for model, given in answers.items()
            },
            group="easy" if number < count // 4 else "hard",
        )
        for number in range(count)
    )
    figures = {model: {f"eval/sums/{metric}": sum(given) / count} for model, given in answers.items()}
    models = {model: ModelFacts("sums:1" if model == "champion" else model) for model in answers}
    task = TaskFacts("sums", "v1", metric, count, 1.0, problems=dict.fromkeys(answers, 0))
    return EvalReport(models, figures, {f"eval/sums/{metric}": count}, (task,), questions)


def right(share: float, count: int = 200) -> list[float]:
    return [1.0 if number < share * count else 0.0 for number in range(count)]


def outcomes(found: EvalReport, policy: GateSpec, champion: str | None = None) -> list[tuple[str, str]]:
    return [(check.check, check.outcome) for check in judge_policy(found, policy, champion).checks]


@pytest.mark.parametrize(
    ("adapter", "least", "outcome"),
    [(0.6, 0.0, "passed"), (0.6, 0.05, "passed"), (0.6, 0.1, "failed"), (0.51, 0.0, "failed"), (0.4, 0.0, "failed")],
)
def test_a_gain_must_be_shown(adapter: float, least: float, outcome: str) -> None:
    found = report({"base": right(0.5), "adapter": right(adapter)})
    assert outcomes(found, GateSpec(gain={ACCURACY: least})) == [("gain", outcome)]


def test_a_gain_that_chance_may_explain_says_so_and_is_not_shown() -> None:
    found = report({"base": [0.0] * 5, "adapter": [1.0] * 4 + [0.0]})
    (least, gain) = judge_policy(found, GateSpec(least={ACCURACY: 0.1}, gain={ACCURACY: 0.0})).checks
    assert (least.outcome, gain.outcome) == ("passed", "failed")
    assert "gain +0.8000 [-0.1638 to +0.9638], which chance may explain" in least.figure
    assert "gain +0.8000 [-0.1638 to +0.9638] on 5 questions" in gain.figure
    shown = judge_policy(report({"base": right(0.5), "adapter": right(0.9)}), GateSpec(least={ACCURACY: 0.1}))
    assert "chance" not in shown.lines[0]


def test_a_task_that_fell_and_that_nothing_is_asked_of_is_told() -> None:
    found = report({"base": right(0.8, 5), "adapter": right(0.4, 5)})
    quiet = judge_policy(found, GateSpec(longest=2.0))
    assert quiet.passed, "it was not asked"
    assert [line for line in quiet.lines if "nothing asks for it" in line] == [
        "sums: gain -0.4000 [-0.7693 to +0.2735] on 5 questions, not told apart; nothing asks for it (`no_worse` would)"
    ]
    for policy in (GateSpec(least={ACCURACY: -0.5}), GateSpec(no_worse=0.5)):
        assert not judge_policy(found, policy).fallen, "its own line tells"


def test_a_champion_that_is_judged_again_is_held_against_the_base_with_a_word() -> None:
    found = report({"base": right(0.5), "adapter": right(0.9)})
    (check,) = judge_policy(found, GateSpec(no_worse=0.1), is_champion=True).checks
    assert check.limit.endswith("against the base, as the champion is this adapter itself")


@pytest.mark.parametrize(
    ("adapter", "margin", "outcome"),
    [
        (0.8, 0.05, "passed"),
        (0.78, 0.05, "failed"),
        (0.78, 0.06, "passed"),
        (0.6, 0.05, "failed"),
        (0.9, 0.01, "passed"),
    ],
)
def test_no_task_may_be_worse_than_the_champion(adapter: float, margin: float, outcome: str) -> None:
    found = report({"base": right(0.2), "adapter": right(adapter), "champion": right(0.8)})
    assert outcomes(found, GateSpec(no_worse=margin), "sums:1") == [("no_worse", outcome)]


def test_equal_answers_to_few_questions_do_not_show_that_nothing_is_worse() -> None:
    found = report({"base": right(0.5, 20), "adapter": right(0.5, 20)})
    (check,) = judge_policy(found, GateSpec(no_worse=0.05)).checks
    assert check.outcome == "failed"
    assert "on 20 questions" in check.figure and "questions would tell" in check.figure
    assert "against the base" in check.limit, "there is no champion yet"


def test_a_champion_that_was_not_measured_or_moved_since_fails() -> None:
    found = report({"base": right(0.5), "adapter": right(0.9)})
    assert outcomes(found, GateSpec(no_worse=0.1), "sums:1") == [("no_worse", "not measured")]
    measured = report({"base": right(0.5), "adapter": right(0.9), "champion": right(0.5)})
    assert outcomes(measured, GateSpec(no_worse=0.1), "sums:2") == [("no_worse", "not measured")]
    assert outcomes(measured, GateSpec(no_worse=0.1), "sums:1") == [("no_worse", "passed")]


def test_what_no_task_measured_does_not_pass() -> None:
    found = report({"base": right(0.5), "adapter": right(0.9)})
    policy = GateSpec(gain={"eval/other/accuracy": 0.0}, at_least={"eval/safety/accuracy": 0.9})
    assert outcomes(found, policy) == [("gain", "not measured"), ("at_least", "not measured")]
    assert not judge_policy(found, policy).passed


@pytest.mark.parametrize(("bound", "outcome"), [(0.6, "passed"), (0.61, "failed")])
def test_bounds_of_the_adapters_own_figures(bound: float, outcome: str) -> None:
    found = report({"base": right(0.9), "adapter": right(0.6)})
    assert outcomes(found, GateSpec(at_least={ACCURACY: bound})) == [("at_least", outcome)]
    (check,) = (each for each in judge_policy(found, GateSpec(at_least={ACCURACY: bound})).checks)
    assert re.search(r"0\.\d{4} \[0\.\d{4} to 0\.\d{4}\] on \d+ questions", str(check))


def test_bounds_of_what_should_be_small() -> None:
    found = report({"base": [0.5] * 20, "adapter": [0.2] * 20}, metric="unread")
    assert outcomes(found, GateSpec(at_least={"eval/sums/unread": 0.3})) == [("at_least", "passed")]
    assert outcomes(found, GateSpec(at_least={"eval/sums/unread": 0.1})) == [("at_least", "failed")]


def test_answers_that_never_end_are_too_long() -> None:
    found = report({"base": right(0.5), "adapter": right(0.9)}, tokens={"base": 10, "adapter": 64})
    assert outcomes(found, GateSpec(longest=2.0)) == [("longest", "failed")]
    assert outcomes(found, GateSpec(longest=7.0)) == [("longest", "passed")]


def test_a_length_that_cannot_be_compared_is_not_measured() -> None:
    found = report({"base": right(0.5), "adapter": right(0.5)}, tokens={"base": 0, "adapter": 5})
    assert outcomes(found, GateSpec(longest=2.0)) == [("longest", "not measured")]


def test_questions_that_the_champion_left_without_an_answer_fail_every_gate() -> None:
    found = report({"base": right(0.5), "adapter": right(0.5), "champion": right(0.5)})
    tasks = tuple(replace(task, problems={"base": 0, "adapter": 0, "champion": 3}) for task in found.tasks)
    told = outcomes(replace(found, tasks=tasks), GateSpec(no_worse=0.5), "demo:1")
    assert ("complete", "failed") in told


def test_less_is_better_for_some() -> None:
    found = compare_task(
        "sums",
        "loss",
        report({"base": [2.0, 2.5, 3.0], "adapter": [1.0, 1.4, 2.1]}, metric="loss").questions,
        "base",
        "adapter",
    )
    assert found is not None and found.outcome == "better" and found.gain.difference == pytest.approx(1.0)


def test_a_report_compares_its_models() -> None:
    values = report({"base": right(0.5), "adapter": right(0.6), "champion": right(0.8)})
    (base,), (champion,) = values.comparisons(), values.comparisons("champion")
    assert (base.outcome, champion.outcome) == ("better", "worse")
    assert base.gain.difference == pytest.approx(0.1) and base.macro is not None
    assert base.macro.value == pytest.approx(0.1 / 1.5, abs=1e-3), "the gain lies in the larger group alone"
    assert 0.03 < base.could_show.difference < 0.1
    text = values.markdown()
    assert "adapter against base by accuracy +0.100" in text and "adapter against champion by accuracy -0.200" in text
    assert '"could_show"' in values.to_json() and EvalReport.from_json(values.to_json()) == values


def test_questions_without_a_value_of_both_are_left_out() -> None:
    found = report({"base": right(0.5), "adapter": right(0.6)})
    found.questions[0].given["adapter"].values.clear()
    (compared,) = found.comparisons()
    assert (compared.left_out, compared.gain.count) == (1, 199)


def test_both_forms_of_a_gate() -> None:
    short = validate(RegisterSpec, {"name": "x", "gate": {"eval/loss": 0.1}}, "register")
    assert short.gate == GateSpec(least={"eval/loss": 0.1})
    assert not validate(RegisterSpec, {"name": "x"}, "register").gate.asks
    full = validate(RegisterSpec, {"name": "x", "gate": {"eval/loss": 0.1, "no_worse": 0.02}}, "register")
    assert full.gate.metrics == {"eval/loss"} and full.gate.no_worse == 0.02


BAD: dict[str, Callable[[], object]] = {
    "margin": lambda: validate(RegisterSpec, {"name": "x", "gate": {"no_worse": -1}}, "register"),
    "word": lambda: validate(RegisterSpec, {"name": "x", "gate": {"eval/loss": "much"}}, "register"),
    "twice": lambda: validate(
        RegisterSpec, {"name": "x", "gate": {"eval/loss": 1, "least": {"eval/loss": 2}}}, "register"
    ),
    "percent": lambda: validate(
        RegisterSpec, {"name": "x", "gate": {"at_least": {"eval/sums/accuracy": 50}}}, "register"
    ),
    "metric": lambda: validate(RegisterSpec, {"name": "x", "gate": {"gain": {"accuracy": 0}}}, "register"),
    "unknown": lambda: validate(RegisterSpec, {"name": "x", "gate": {"better": {"eval/loss": 1}}}, "register"),
}


@pytest.mark.parametrize("call", BAD.values(), ids=BAD)
def test_a_gate_that_cannot_be_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(SpecError, match="gate"):
        call()
