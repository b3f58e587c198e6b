"""Files that `didact evaluate` writes."""

from pathlib import Path

from typer.testing import CliRunner

from didact.cli import app
from didact.evaluation import EvalReport, Given, ModelFacts, QuestionFacts, TaskFacts


def test_a_stored_report_is_shown_and_written_again(tmp_path: Path) -> None:
    question = QuestionFacts("sums", "0", "1 + 1?", "2", {"base": Given(("2",), {"accuracy": 1.0})})
    figures = {"eval/sums/accuracy": 1.0}
    task = TaskFacts("sums", "1", "accuracy", 1, 1.0)
    report = EvalReport(
        {"base": ModelFacts("tiny")}, {"base": figures}, {"eval/sums/accuracy": 1}, (task,), (question,)
    )
    source = report.save(tmp_path / "report.json")
    page, again, text = tmp_path / "out" / "p.html", tmp_path / "again.json", tmp_path / "r.md"
    wanted = ["--page", str(page), "--json", str(again), "--markdown", str(text)]
    result = CliRunner().invoke(app, ["evaluate", str(source), *wanted])
    assert result.exit_code == 0, result.output
    assert "sums/accuracy" in result.output and f"written: {page}" in result.output
    assert "<title>Evaluation of tiny</title>" in page.read_text(encoding="utf-8")
    assert EvalReport.load(again) == report
    assert text.read_text(encoding="utf-8") == report.markdown()
