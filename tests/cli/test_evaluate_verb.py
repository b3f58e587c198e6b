"""Files that `didact evaluate` writes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from didact.cli import app, guarded
from didact.errors import EvaluationIncomplete, SpecError
from didact.evaluation import EvalReport, Given, ModelFacts, QuestionFacts, TaskFacts
from tests.fakes.endpoint import Said, completion, error, serve_endpoint


def small_report() -> EvalReport:
    question = QuestionFacts("sums", "0", "1 + 1?", "2", {"base": Given(("2",), {"accuracy": 1.0})})
    figures = {"eval/sums/accuracy": 1.0}
    task = TaskFacts("sums", "1", "accuracy", 1, 1.0)
    return EvalReport({"base": ModelFacts("tiny")}, {"base": figures}, {"eval/sums/accuracy": 1}, (task,), (question,))


def test_what_could_not_be_written_or_changed_is_told_first(tmp_path: Path) -> None:
    report = small_report().save(tmp_path / "report.json")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for words, said in (
        (["--page", str(tmp_path / "folder")], "Is a directory: '.*/folder'"),
        (["--json", str(tmp_path / "file" / "r.json")], "Not a directory: '.*/file/r.json'"),
        (["evaluation.tasks.0.num_items=1"], "is a report; nothing in it can be changed, found evaluation.tasks"),
    ):
        with pytest.raises((OSError, SpecError), match=said):
            CliRunner().invoke(app, ["evaluate", str(report), *words], catch_exceptions=False)


def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, guarded():
        (tmp_path / "nothing").read_text()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/nothing: No such file or directory\n"


def test_a_stored_report_is_shown_and_written_again(tmp_path: Path) -> None:
    report = small_report()
    source = report.save(tmp_path / "report.json")
    page, again, text = tmp_path / "out" / "p.html", tmp_path / "again.json", tmp_path / "r.md"
    wanted = ["--page", str(page), "--json", str(again), "--markdown", str(text)]
    result = CliRunner().invoke(app, ["evaluate", str(source), *wanted])
    assert result.exit_code == 0, result.output
    assert "sums/accuracy" in result.output and f"written: {page}" in result.output
    assert "<title>Evaluation of tiny</title>" in page.read_text(encoding="utf-8")
    assert EvalReport.load(again) == report
    assert text.read_text(encoding="utf-8") == report.markdown()


def judged_by(judge: Said, tmp_path: Path) -> Any:
    """What `didact evaluate` ends with where the model answers and the judge says this."""
    rows = [{"question": f"{n}?", "std_answer": "1", "class": "math"} for n in range(2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def reply(asked: dict[str, Any]) -> Said:
        return judge if asked["model"] == "judge" else completion("It is 1.")

    with serve_endpoint(reply) as fake:
        endpoint = {"url": fake.url, "model": "wise", "retries": 0, "gives_up_after": 1}
        spec = {
            "endpoint": endpoint,
            "evaluation": {
                "judge": {"endpoint": {**endpoint, "model": "judge", "deadline_seconds": 20, "timeout_seconds": 0.3}},
                "tasks": [{"task": "belle_eval", "path": str(tmp_path / "rows.jsonl")}],
            },
        }
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        arguments = ["evaluate", str(tmp_path / "spec.json"), "--json", str(tmp_path / "report.json")]
        return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    "judge", [error(500, "down"), completion("I will not say."), replace(completion("Score: 1"), hangs_after=5)]
)
def test_figures_of_some_questions_alone_do_not_end_in_0(
    judge: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    result = judged_by(judge, tmp_path)
    assert isinstance(result.exception, EvaluationIncomplete) and result.exception.exit_code == 75
    assert "belle_eval, base: 2 of 2 questions, the first: " in str(result.exception)
    assert not EvalReport.load(tmp_path / "report.json").is_complete, "it is written before the command ends"
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "report.json")])
    assert done.exit_code == 0, "a report that is only shown was not measured now"
    result = judged_by(completion("Score: 1"), tmp_path)
    assert result.exit_code == 0, result.output
