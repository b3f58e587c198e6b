import io
import json
import math
import pickle
from pathlib import Path

import pytest
from rich.console import Console

from didact.errors import DataError, SpecError
from didact.evaluation import (
    Comparison,
    EvalReport,
    Example,
    TaskResult,
    combine,
    higher_is_better,
    improvement,
    wilson_interval,
)

LOSS, ACCURACY = "eval/loss", "eval/chain_sum/accuracy"


def results(loss: float, right: tuple[bool, ...]) -> list[TaskResult]:
    examples = tuple(Example(f"q{n}", str(n), f"says {n if ok else 'x'}", ok) for n, ok in enumerate(right))
    share = sum(right) / len(right)
    return [
        TaskResult("held_out", {LOSS: loss}, {LOSS: 12}, 12, (), 0.5),
        TaskResult("chain_sum", {ACCURACY: share}, {ACCURACY: len(right)}, len(right), examples, 0.5),
    ]


def both() -> EvalReport:
    return combine(
        results(2.5, (True, False, False, False)),
        results(1.25, (False, True, True, True)),
        base_id="smollm2",
        adapter_id="demo:3",
    )


def printed(report: EvalReport, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(report.table())
    return console.file.getvalue()


def shown(report: EvalReport, width: int = 160) -> dict[str, str]:
    """Metric -> its line of the terminal table, which leaves out the prefix that all metrics share."""
    lines = [line for line in printed(report, width).splitlines() if line.split()[:1]]
    return {f"eval/{line.split()[0]}": line for line in lines}


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    lines = shown(both(), width=80)
    assert "-1.2500 better" in lines[LOSS] and "+50.0% better" in lines[ACCURACY]
    assert "…" not in "".join(lines.values())


def test_both_sides_stand_beside_each_other() -> None:
    report = both()
    assert report.metrics("base") == {LOSS: 2.5, ACCURACY: 0.25}
    assert report.metrics("adapter") == {LOSS: 1.25, ACCURACY: 0.75}
    assert report.counts == {LOSS: 12, ACCURACY: 4}
    assert report.examples[0] == Comparison("chain_sum", "q0", "0", "says 0", True, "says x", False)
    assert len(report.examples) == 4


def test_metrics_are_a_copy() -> None:
    report = both()
    report.metrics("base").clear()
    assert report.base


def test_the_table_tells_better_from_worse() -> None:
    lines = shown(both())
    assert "-1.2500 better" in lines[LOSS]
    assert "+50.0% better" in lines[ACCURACY]
    assert "25.0% [5-70]" in lines[ACCURACY]
    assert "[" not in lines[LOSS]
    worse = combine(results(1.0, (True,)), results(2.0, (False,)), base_id="b", adapter_id="a")
    lines = shown(worse)
    assert "+1.0000 worse" in lines[LOSS]
    assert "-100.0% worse" in lines[ACCURACY]


def test_equal_and_undefined_changes_are_words() -> None:
    report = combine(results(1.0, (True,)), results(math.nan, (True,)), base_id="b", adapter_id="a")
    lines = shown(report)
    assert "unknown" in lines[LOSS]
    assert "same" in lines[ACCURACY]


def test_markdown_shows_changed_answers_first_and_keeps_its_columns() -> None:
    text = both().markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {line.count("|") for line in table} == {6}
    assert text.startswith("# demo:3 on smollm2\n")
    noisy = Comparison("t", "a | b\n# `c`", "1", "1", True, "1" * 1000, True)
    changed = Comparison("t", "changed", "1", "0", False, "1", True)
    report = EvalReport("b", "a", {LOSS: 1.0}, {LOSS: 1.0}, {LOSS: 1}, (*[noisy] * 9, changed))
    examples = report.markdown().partition("**")[2]
    assert examples.startswith("t**: `changed`")
    assert "`a | b # 'c'`" in examples
    assert "1" * 241 not in examples


def test_a_base_alone_has_empty_columns_for_the_adapter() -> None:
    report = combine(results(2.5, (True, False)), None, base_id="smollm2")
    assert report.adapter is None
    assert report.examples[0] == Comparison("chain_sum", "q0", "0", "says 0", True, None, None)
    assert "better" not in printed(report)
    assert "adapter (" not in report.markdown()
    with pytest.raises(DataError, match="alone"):
        report.metrics("adapter")


@pytest.mark.parametrize("report", [both(), combine(results(2.5, (True,)), None, base_id="smollm2")])
def test_a_report_survives_its_file(report: EvalReport, tmp_path: Path) -> None:
    path = report.save(tmp_path / "deep" / "report.json")
    assert EvalReport.load(path) == report
    assert pickle.loads(pickle.dumps(report)) == report


def test_undefined_metrics_are_null_in_the_file() -> None:
    report = combine(results(math.nan, (True,)), results(math.inf, (True,)), base_id="b", adapter_id="a")
    assert json.loads(report.to_json())["base"][LOSS] is None
    back = EvalReport.from_json(report.to_json())
    assert math.isnan(back.base[LOSS])
    assert math.isnan(back.metrics("adapter")[LOSS])
    assert back.base[ACCURACY] == 1.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"base": 1}', both().to_json().replace("expected", "wanted")])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"report\.json: not an evaluation report"):
        EvalReport.load(path)
    with pytest.raises(DataError, match="missing"):
        EvalReport.load(tmp_path / "absent.json")


def test_sides_that_were_measured_differently_are_refused() -> None:
    with pytest.raises(DataError, match="same questions"):
        combine(results(1.0, (True,)), results(1.0, (True,))[:1], base_id="b", adapter_id="a")
    with pytest.raises(DataError, match="measured alike"):
        combine(results(1.0, (True,)), results(1.0, (True,))[1:], base_id="b", adapter_id="a")
    other = results(1.0, (True,))
    question = Example("another", "0", "0", True)
    other[1] = TaskResult("chain_sum", {ACCURACY: 1.0}, {ACCURACY: 1}, 1, (question,), 0.1)
    with pytest.raises(DataError, match="same questions"):
        combine(results(1.0, (True,)), other, base_id="b", adapter_id="a")


def test_two_tasks_of_one_metric_are_refused() -> None:
    twice = [*results(1.0, (True,)), results(1.0, (True,))[1]]
    with pytest.raises(SpecError, match=f"two tasks give {ACCURACY}"):
        combine(twice, None, base_id="b")


def test_losses_fall_and_accuracies_rise() -> None:
    assert not higher_is_better("eval/loss")
    assert not higher_is_better("eval/alpaca/loss")
    assert higher_is_better("eval/loss/accuracy")
    assert improvement("eval/loss", 3.0, 2.0) == 1.0
    assert improvement(ACCURACY, 0.5, 0.25) == -0.25


def test_wilson_interval_against_published_values() -> None:
    # Newcombe (1998), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson_interval(29, 29)[1] == 1.0
    for wrong in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="expected at least one item"):
            wilson_interval(*wrong)
