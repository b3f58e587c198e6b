import dataclasses
import io
import json
import math
import pickle
from pathlib import Path

import pytest
from rich.console import Console

from didact.datasets.conversation import Message
from didact.errors import DataError, SpecError
from didact.evaluation import (
    Answer,
    EvalReport,
    Given,
    ModelFacts,
    Question,
    QuestionFacts,
    Score,
    Scored,
    TaskResult,
    Text,
    combine,
    higher_is_better,
    improvement,
    wilson_interval,
)
from didact.evaluation.report.comparisons import compare_task
from didact.evaluation.results import task_metrics
from didact.evaluation.statistics import averages, mean_interval

LOSS, ACCURACY = "eval/loss", "eval/chain_sum/accuracy"


def scored(name: str, expected: str, text: str, right: bool) -> Scored:
    question = Question(name, (Message("user", name),), expected)
    return Scored(question, (Answer((Text(text, 2, "stop"),)),), Score({"accuracy": float(right)}, extracted=text))


def results(loss: float, right: tuple[bool, ...], version: str = "1") -> list[TaskResult]:
    each = tuple(scored(f"q{n}", str(n), f"says {n if ok else 'x'}", ok) for n, ok in enumerate(right))
    share = sum(right) / len(right)
    return [
        TaskResult("held_out", {LOSS: loss}, {LOSS: 12}, 12, 0.5),
        TaskResult("chain_sum", {ACCURACY: share}, {ACCURACY: len(right)}, len(right), 0.5, each, version, "accuracy"),
    ]


def together(base: list[TaskResult], adapter: list[TaskResult] | None = None) -> EvalReport:
    found = {"base": base} if adapter is None else {"base": base, "adapter": adapter}
    names = {"base": "smollm2", "adapter": "demo:3"}
    return combine({model: ModelFacts(names[model]) for model in found}, found)


def both() -> EvalReport:
    return together(results(2.5, (True, False, False, False)), results(1.25, (False, True, True, True)))


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
    assert "-1.2500 better" in lines[LOSS] and "+50.0% unclear" in lines[ACCURACY]
    assert "…" not in "".join(lines.values())


def test_both_sides_stand_beside_each_other() -> None:
    report = both()
    assert report.metrics("base") == {LOSS: 2.5, ACCURACY: 0.25}
    assert report.metrics("adapter") == {LOSS: 1.25, ACCURACY: 0.75}
    assert report.counts == {LOSS: 12, ACCURACY: 4}
    given = {
        "base": Given(("says 0",), {"accuracy": 1.0}, "says 0", num_tokens=2),
        "adapter": Given(("says x",), {"accuracy": 0.0}, "says x", num_tokens=2),
    }
    assert report.questions[0] == QuestionFacts("chain_sum", "q0", "q0", "0", given)
    assert len(report.questions) == 4
    assert [(task.name, task.metric, task.num_questions) for task in report.tasks] == [
        ("held_out", "loss", 12),
        ("chain_sum", "accuracy", 4),
    ]
    assert report.is_complete


def test_metrics_are_a_copy() -> None:
    report = both()
    report.metrics("base").clear()
    assert report.base


def test_the_table_tells_better_from_worse() -> None:
    lines = shown(both())
    assert "-1.2500 better" in lines[LOSS]
    assert "+50.0% unclear" in lines[ACCURACY], "four questions show nothing"
    many = together(results(2.5, (True, False) * 20), results(2.5, (True,) * 40))
    assert "+50.0% better" in shown(many)[ACCURACY]
    assert "25.0% [5-70]" in lines[ACCURACY]
    assert "[" not in lines[LOSS]
    worse = together(results(1.0, (True,) * 9), results(2.0, (False,) * 9))
    lines = shown(worse)
    assert "+1.0000 worse" in lines[LOSS]
    assert "-100.0% worse" in lines[ACCURACY]


def test_equal_and_undefined_changes_are_words() -> None:
    report = together(results(1.0, (True,)), results(math.nan, (True,)))
    lines = shown(report)
    assert "unknown" in lines[LOSS]
    assert "same" in lines[ACCURACY]


def test_markdown_shows_changed_answers_first_and_keeps_its_columns() -> None:
    text = both().markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {line.count("|") for line in table} == {6}
    assert text.startswith("# demo:3 on smollm2\n")

    def asked(text: str, base: bool, adapter: bool) -> QuestionFacts:
        sides = {"base": base, "adapter": adapter}
        given = {side: Given(("1" * 1000,), {"accuracy": float(right)}) for side, right in sides.items()}
        return QuestionFacts("t", text, text, "1", given)

    noisy, changed = asked("a | b\n# `c`", True, True), asked("changed", False, True)
    report = dataclasses.replace(both(), questions=(*[noisy] * 9, changed))
    examples = report.markdown().partition("**")[2]
    assert examples.startswith("t**: `changed`")
    assert "`a | b # 'c'`" in examples
    assert "1" * 241 not in examples


def test_a_base_alone_has_empty_columns_for_the_adapter() -> None:
    report = together(results(2.5, (True, False)))
    assert report.adapter is None
    assert set(report.questions[0].given) == {"base"}
    assert "better" not in printed(report)
    assert "adapter (" not in report.markdown()
    with pytest.raises(DataError, match="no metrics of 'adapter'"):
        report.metrics("adapter")


@pytest.mark.parametrize("report", [both(), together(results(2.5, (True,)))])
def test_a_report_survives_its_file(report: EvalReport, tmp_path: Path) -> None:
    path = report.save(tmp_path / "deep" / "report.json")
    assert EvalReport.load(path) == report
    assert pickle.loads(pickle.dumps(report)) == report


def test_undefined_metrics_are_null_in_the_file() -> None:
    report = together(results(math.nan, (True,)), results(math.inf, (True,)))
    assert json.loads(report.to_json())["metrics_of"]["base"][LOSS] is None
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


def test_a_report_whose_bytes_or_figures_are_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"report\.json: not an evaluation report"):
        EvalReport.load(path)
    values = json.loads(both().to_json())
    values["metrics_of"]["base"][ACCURACY] = "high"
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"report\.json: not an evaluation report .*'high'"):
        EvalReport.load(path)


def test_a_report_without_some_of_its_questions_is_incomplete() -> None:
    report = both()
    assert report.is_complete
    assert not dataclasses.replace(report, questions=report.questions[1:]).is_complete
    assert not dataclasses.replace(report, questions=()).is_complete


def test_models_that_were_measured_differently_are_refused() -> None:
    asked = results(1.0, (True,))
    for other in (asked[:1], asked[1:], results(1.0, (True,), "2"), results(1.0, (True, False))):
        with pytest.raises(DataError, match="adapter was not measured alike"):
            together(asked, other)


def test_questions_without_an_answer_are_counted_and_are_no_wrong_ones() -> None:
    base, adapter = results(1.0, (True, False)), results(1.0, (True, False))
    silent = Scored(adapter[1].scored[1].question, (Answer(problem="busy"),), Score(problem="busy"))
    adapter[1] = dataclasses.replace(adapter[1], scored=(adapter[1].scored[0], silent))
    report = together(base, adapter)
    assert report.tasks[1].problems == {"base": 0, "adapter": 1}
    assert not report.is_complete
    assert "adapter (busy)" in report.markdown()


def test_what_stands_in_no_figure_is_said_below_the_table() -> None:
    lost = Scored(Question("q9", (Message("user", "?"),)), (), Score(problem="the model gave no text"))
    left_out = tuple(f"left out: q.jsonl:{line} broken_json" for line in range(1, 6))
    each = (scored("q0", "1", "1", True), lost)
    result = TaskResult("t", {"eval/t/accuracy": 1.0}, {"eval/t/accuracy": 1}, 2, 0.1, each, "1", "accuracy", left_out)
    report = together([result])
    for page in (" ".join(printed(report).split()), report.markdown()):
        assert "t: 1 of 2 questions have no score of base; the first is question q9: the model gave no text" in page
        assert "t: left out: q.jsonl:3 broken_json" in page
        assert "q.jsonl:4" not in page
        assert "t: 2 more corrections are in the report" in page
    assert "no score" not in printed(both())


def test_lengths_and_probes_are_neither_better_nor_worse() -> None:
    def of(value: float) -> list[TaskResult]:
        values = {f"eval/t/{name}": value for name in ("answer_tokens", "faithfulness/early/25", "unread")}
        return [TaskResult("t", values, dict.fromkeys(values, 4), 4, 0.1)]

    lines = shown(together(of(0.5), of(1.0)))
    assert "better" not in lines["eval/t/answer_tokens"] and "+0.5000" in lines["eval/t/answer_tokens"]
    assert "better" not in lines["eval/t/faithfulness/early/25"]
    assert "+50.0% worse" in lines["eval/t/unread"]


def test_groups_have_figures_and_count_alike_in_the_macro_mean() -> None:
    values = [("law", 1.0), ("law", 0.0), ("law", 0.0), ("art/music", 1.0)]
    pairs = [
        (Question(str(n), (Message("user", "?"),), group=group), Score({"accuracy": value, "unread": 0.0}))
        for n, (group, value) in enumerate(values)
    ]
    pairs.append((pairs[0][0], Score(problem="no answer")))
    metrics, counts = task_metrics("mmcu", "accuracy", pairs, {"ece": 0.25})
    assert metrics == pytest.approx(
        {
            "eval/mmcu/accuracy": 0.5,
            "eval/mmcu/unread": 0.0,
            "eval/mmcu/macro_accuracy": (1 / 3 + 1) / 2,
            "eval/mmcu/law/accuracy": 1 / 3,
            "eval/mmcu/art-music/accuracy": 1.0,
            "eval/mmcu/ece": 0.25,
        }
    )
    assert (counts["eval/mmcu/accuracy"], counts["eval/mmcu/law/accuracy"]) == (4, 3)


def test_a_report_of_an_earlier_version_opens() -> None:
    example = {"task": "chain_sum", "question": "1 + 1?", "expected": "2", "base_answer": "3", "base_correct": False}
    example |= {"adapter_answer": "2", "adapter_correct": True}
    old = {
        "base_id": "smollm2",
        "adapter_id": "demo",
        "base": {ACCURACY: 0.0, LOSS: None},
        "adapter": {ACCURACY: 1.0, LOSS: 1.0},
        "counts": {ACCURACY: 1, LOSS: 4},
        "examples": [example],
    }
    report = EvalReport.from_json(json.dumps(old))
    assert (report.models["base"].name, report.models["adapter"].name) == ("smollm2", "demo")
    assert report.metrics("adapter") == {ACCURACY: 1.0, LOSS: 1.0} and math.isnan(report.base[LOSS])
    (asked,) = report.questions
    assert (asked.id, asked.question, asked.given["adapter"].texts) == ("0", "1 + 1?", ("2",))
    assert asked.given["base"].values == {"accuracy": 0.0}
    alone = EvalReport.from_json(json.dumps({**old, "adapter_id": None, "adapter": None, "examples": []}))
    assert list(alone.models) == ["base"]


def test_two_tasks_of_one_metric_are_refused() -> None:
    twice = [*results(1.0, (True,)), results(1.0, (True,))[1]]
    with pytest.raises(SpecError, match=f"two tasks give {ACCURACY}"):
        together(twice)


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


def test_a_standard_error_stands_as_interval_with_what_it_is_of() -> None:
    figures = {"eval/own/mcc": 0.5, "eval/own/mcc_stderr": 0.1, "eval/own/lonely_stderr": 0.2}
    report = EvalReport({"base": ModelFacts("b")}, {"base": figures}, dict.fromkeys(figures, 9))
    text = printed(report)
    assert "0.5000 [0.304, 0.696]" in text and "mcc_stderr" not in text and "lonely_stderr" in text


def in_passages(right: tuple[bool, ...], classes: bool = True) -> list[TaskResult]:
    """Twelve questions about four passages, of two classes; the last one got no answer."""
    each = []
    for number, ok in enumerate(right):
        question = Question(
            f"q{number}", (Message("user", "Q"),), group=("law", "art")[number % 2], passage=f"text {number // 3}"
        )
        score = Score({"accuracy": float(ok)}) if number < 11 else Score(problem="no answer came")
        each.append(Scored(question, (), score))
    values, counts = task_metrics("mmcu", "accuracy", [(one.question, one.score) for one in each], {})
    return [TaskResult("mmcu", values, counts, 12, 0.1, tuple(each), "1", "accuracy")]


def test_every_face_takes_the_interval_of_the_models_own_questions_and_their_passages() -> None:
    first, second = (True,) * 6 + (False,) * 6, (True, False) * 6
    report = together(in_passages(first), in_passages(second))
    figures = {each.metric: each for each in report.figures}
    assert list(figures) == [
        f"eval/mmcu/{name}" for name in ("accuracy", "macro_accuracy", "law/accuracy", "art/accuracy")
    ]
    whole = figures["eval/mmcu/accuracy"].points["base"]
    values = [float(each) for each in first[:11]]
    expected = mean_interval(values, [f"text {number // 3}" for number in range(11)])
    assert (whole.count, whole.low, whole.high) == (11, expected.low, expected.high)
    assert whole.low < wilson_interval(6, 11)[0], "passages that stand or fall together say less"
    art = figures["eval/mmcu/art/accuracy"].points["base"]
    assert (art.count, art.value) == (5, 0.6) and art.low is not None, "a class has an interval too"
    classes, texts = [("law", "art")[number % 2] for number in range(11)], [f"text {n // 3}" for n in range(11)]
    macro = averages(values, classes, texts, share=True)
    assert figures["eval/mmcu/macro_accuracy"].points["base"].low == pytest.approx(macro.macro.low)
    (compared,) = report.comparisons()
    change = figures["eval/mmcu/accuracy"].change
    assert change is not None and (change.low, change.high) == (compared.gain.low, compared.gain.high)
    written = figures["eval/mmcu/accuracy"].written("base")
    assert written in report.markdown() and written in shown(report)["eval/mmcu/accuracy"]


@pytest.mark.parametrize("groups", [("a/b", "a-b"), ("law", "")], ids=["one name", "without a class"])
def test_every_class_that_results_name_has_an_interval(groups: tuple[str, str]) -> None:
    right = (True, False, True, True, False, False, True, False, True, True, True, False)
    scored = [
        Scored(Question(f"q{n}", (Message("user", "Q"),), group=groups[n % 2]), (), Score({"accuracy": float(ok)}))
        for n, ok in enumerate(right)
    ]
    values, counts = task_metrics("mmcu", "accuracy", [(one.question, one.score) for one in scored], {})
    result = [TaskResult("mmcu", values, counts, 12, 0.1, tuple(scored), "1", "accuracy")]
    figures = {each.metric: each.points["base"] for each in together(result, result).figures}
    assert figures.keys() == values.keys() and len(figures) == 4
    assert all(point.low is not None and point.value == values[metric] for metric, point in figures.items())


def test_a_length_is_never_below_nothing() -> None:
    lengths = [Score({"accuracy": 1.0, "answer_tokens": each, "gain": each}) for each in (2.0, 20.0)]
    each = tuple(replace_score(scored(f"q{n}", "1", "1", True), score) for n, score in enumerate(lengths))
    metrics, counts = task_metrics("t", "accuracy", [(one.question, one.score) for one in each], {})
    report = together([TaskResult("t", metrics, counts, 2, 0.5, each, "1", "accuracy")])
    found = {figure.metric: figure.points["base"] for figure in report.figures}
    assert found["eval/t/answer_tokens"].low == 0.0 and found["eval/t/gain"].low < 0


def replace_score(one: Scored, score: Score) -> Scored:
    return dataclasses.replace(one, score=score)


def test_of_classes_in_which_nothing_changed_chance_is_still_told() -> None:
    facts = [
        QuestionFacts("t", str(n), "?", "", {m: Given((), {"accuracy": 1.0}) for m in ("base", "adapter")}, "ab"[n % 2])
        for n in range(20)
    ]
    compared = compare_task("t", "accuracy", facts, "base", "adapter")
    assert compared is not None and compared.macro is not None and compared.macro.value == 0
    # Twenty in two classes of equal size are worth twenty.
    assert (compared.macro.low, compared.macro.high) == pytest.approx((compared.gain.low, compared.gain.high))
    turned = [
        dataclasses.replace(each, given={**each.given, "base": Given((), {"accuracy": float(each.group == "a")})})
        for each in facts
    ]
    told = str(compare_task("t", "accuracy", turned, "base", "adapter"))
    # Ten changed in one of two classes: half of all questions, as many coins that all fall on one side.
    assert "macro (each group the same weight) +0.500 [+0.192 to +0.701]: better" in told
