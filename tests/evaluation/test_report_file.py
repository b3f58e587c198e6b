"""A report's file says what was written, or is refused; a figure says no more than its questions do."""

import json
from pathlib import Path

import pytest

from didact.errors import DataError
from didact.evaluation import EvalReport, Given, QuestionFacts, TaskResult
from didact.evaluation.report.figures import measure
from tests.evaluation.test_eval_report import ACCURACY, both, scored, together


def test_a_report_that_was_edited_is_refused_and_one_laid_out_anew_is_not(tmp_path: Path) -> None:
    path = both().save(tmp_path / "report.json")
    values = json.loads(path.read_text())
    again = json.dumps(values, sort_keys=True).replace("1.0", "1")  # as other programs write it
    assert EvalReport.from_json(again) == both()
    values["metrics_of"]["adapter"][ACCURACY] = 1.0
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"report.json: it was changed after it was written \(sha256\)"):
        EvalReport.load(path)
    del values["sha256"]  # nor by leaving out what says so
    with pytest.raises(DataError, match="it was changed after it was written"):
        EvalReport.from_json(json.dumps(values))
    assert EvalReport.from_json(json.dumps(values), is_sealed=False).metrics("adapter")[ACCURACY] == 1.0


def test_half_a_character_of_an_answer_is_kept_and_read_back(tmp_path: Path) -> None:
    each = (scored("q", "1", "one \ud800", True),)
    report = together(
        [TaskResult("t", {"eval/t/accuracy": 1.0}, {"eval/t/accuracy": 1}, 1, 0.5, each, "1", "accuracy")]
    )
    assert EvalReport.load(report.save(tmp_path / "report.json")) == report


@pytest.mark.parametrize(("gains", "side"), [((0.2,), "unclear"), ((0.2, 0.25, 0.3, 0.22, 0.28, 0.24), "better")])
def test_what_one_question_gained_is_unclear(gains: tuple[float, ...], side: str) -> None:
    facts = [
        QuestionFacts("t", str(number), "?", "", {"base": given(0.25), "adapter": given(0.25 + gain)})
        for number, gain in enumerate(gains)
    ]
    figure = measure("eval/t/rougeL", "rougeL", facts, ["base", "adapter"])
    assert figure.side == side and figure.written_change.endswith(side)


def given(value: float) -> Given:
    return Given((), {"rougeL": value})
