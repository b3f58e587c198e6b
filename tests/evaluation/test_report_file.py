"""A report's file says what was written, or is refused."""

import json
from pathlib import Path

import pytest

from didact.errors import DataError
from didact.evaluation import EvalReport, TaskResult
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
    del values["sha256"]  # of earlier versions
    assert EvalReport.from_json(json.dumps(values)).metrics("adapter")[ACCURACY] == 1.0


def test_half_a_character_of_an_answer_is_kept_and_read_back(tmp_path: Path) -> None:
    each = (scored("q", "1", "one \ud800", True),)
    report = together(
        [TaskResult("t", {"eval/t/accuracy": 1.0}, {"eval/t/accuracy": 1}, 1, 0.5, each, "1", "accuracy")]
    )
    assert EvalReport.load(report.save(tmp_path / "report.json")) == report
