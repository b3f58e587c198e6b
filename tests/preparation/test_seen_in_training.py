"""A report says which of its questions the run's own training rows hold, and what the figures are without them."""

from pathlib import Path

import pytest

from didact.evaluation import EvalReport, Given, ModelFacts, QuestionFacts, TaskFacts, judge_policy, task_texts
from didact.preparation import with_seen
from didact.spec import FinetuneSpec, GateSpec
from tests.fakes.recipes import tiny_recipe

NEW = "How many apples does the woman have when she gives three of her nine apples away?"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FinetuneSpec:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tiny_recipe(tmp_path)


def report() -> EvalReport:
    """Forty sums, of which training holds those up to 59, where the adapter is right; forty others, where it is not."""
    asked = [(f"Add {n} and {n + 3}.", n < 60) for n in range(40, 80)]
    asked += [(f"{NEW} Now {n + 1000} of them.", False) for n in range(40)]
    questions = tuple(
        QuestionFacts(
            "sums",
            str(number),
            text,
            "4",
            {"base": Given(("?",), {"accuracy": 0.0}), "adapter": Given(("4",), {"accuracy": float(right)})},
        )
        for number, (text, right) in enumerate(asked)
    )
    whole = {"base": {"eval/sums/accuracy": 0.0}, "adapter": {"eval/sums/accuracy": 0.25}}
    task = TaskFacts("sums", "v1", "accuracy", 80, 1.0)
    models = {"base": ModelFacts("base"), "adapter": ModelFacts("mine")}
    return EvalReport(models, whole, {"eval/sums/accuracy": 80}, (task,), questions)


def test_questions_of_the_training_rows_are_marked_and_the_gain_is_that_on_the_others(spec: FinetuneSpec) -> None:
    found = with_seen(report(), "adapter", spec, task_texts)
    held = [each for each in found.questions if each.given["adapter"].seen]
    assert 10 <= len(held) <= 20, "held-out rows are not trained on"
    assert all(each.given["adapter"].values["accuracy"] == 1.0 for each in held)
    assert all(not each.given["base"].seen for each in found.questions)
    (told,) = found.contamination
    assert (told.num_seen, told.num_questions, told.whole.points["adapter"].value) == (len(held), 80, 0.25)
    assert told.clean is not None and told.clean.points["adapter"].value == (20 - len(held)) / (80 - len(held))
    (line, how) = [each for each in found.remarks if "training data" in each]
    assert f"holds {len(held)} of 80 questions" in line and "52 rows searched for 13 words in a row" in how
    assert EvalReport.from_json(found.to_json()) == found
    assert line in found.markdown().replace("`", "")


def test_the_gate_limits_what_training_holds_and_does_not_count_it_as_a_gain(spec: FinetuneSpec) -> None:
    found = with_seen(report(), "adapter", spec, task_texts)
    policy = GateSpec(contaminated=0.05, gain={"eval/sums/accuracy": 0.05})
    gain, contaminated = judge_policy(found, policy).checks
    assert (gain.outcome, contaminated.outcome) == ("failed", "failed")
    assert judge_policy(report(), GateSpec(gain={"eval/sums/accuracy": 0.05})).passed, "with them, the gain is shown"
    assert judge_policy(found, GateSpec(contaminated=0.3)).passed
    (unknown,) = judge_policy(report(), GateSpec(contaminated=1.0)).checks
    assert unknown.outcome == "not measured", "nobody looked"


def test_training_data_that_is_gone_is_said_and_fails_the_limit(
    spec: FinetuneSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sums.jsonl").unlink()
    found = with_seen(report(), "adapter", spec, task_texts)
    assert any("is not known: " in each and "sums" in each for each in found.remarks)
    (check,) = judge_policy(found, GateSpec(contaminated=1.0)).checks
    assert check.outcome == "not measured" and "sums" in check.figure
