"""The page of an evaluation: right figures, every text as text, nothing asked for beside it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from didact.evaluation import EvalReport, Given, ModelFacts, QuestionFacts, Searched, TaskFacts
from didact.evaluation.page import render_evaluation
from didact.evaluation.page.figures import all_figures, lengths, losses, radars, task_figures
from didact.evaluation.report import Change
from didact.evaluation.statistics import compare, mean_interval
from didact.pages import Axis, radar

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028"
BASE = (1, 0, 0, 0, 1, 0)
ADAPTER = (1, 1, 1, 0, 0, None)
GROUPS = ("law", "law", "art", "art", "tea", "tea")


class Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.texts).append(data)


def given(value: float | None, text: str = "an answer", tokens: int = 3) -> Given:
    if value is None:
        return Given((), {}, problem=f"no answer came {EVIL}")
    return Given((text,), {"accuracy": float(value)}, "read", num_tokens=tokens)


def report(models: int = 2, passages: bool = False) -> EvalReport:
    roles = {"base": BASE, "adapter": ADAPTER, "champion": (1,) * 6}
    names = list(roles)[:models]
    questions = tuple(
        QuestionFacts(
            "mmcu",
            str(number),
            f"Question {number}? {EVIL}",
            "B",
            {role: given(roles[role][number], f"{role} says {EVIL}", 2 + 30 * number) for role in names},
            group,
            f"passage {number // 2}" if passages else "",
        )
        for number, group in enumerate(GROUPS)
    )
    means = {"base": 2 / 6, "adapter": 3 / 5, "champion": 1.0}
    figures = {
        role: {"eval/mmcu/accuracy": means[role], "eval/a/loss": 2.0 - means[role], "eval/loss": 1.0} for role in names
    }
    tasks = (
        TaskFacts("mmcu", "ab" * 16, "accuracy", 6, 90.0, (f"row 3 mended {EVIL}",), dict.fromkeys(names, 0)),
        TaskFacts("held_out", "", "loss", 8, 1.0),
    )
    facts = {role: ModelFacts(f"{role} model", {"base": "cd" * 16}) for role in names}
    counts = {"eval/mmcu/accuracy": 6, "eval/a/loss": 8, "eval/loss": 8}
    return EvalReport(facts, figures, counts, tasks, questions)


def data_of(page: str) -> dict[str, Any]:
    script = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.S)
    assert script is not None
    return json.loads(script[1])


@pytest.mark.parametrize("passages", [False, True])
def test_intervals_and_differences_are_those_of_the_statistics(passages: bool) -> None:
    (task,) = task_figures(report(passages=passages))
    clusters = [f"passage {number // 2}" for number in range(6)] if passages else None
    whole = mean_interval(BASE, clusters)
    base, adapter = task.row.points
    assert (base.value, base.count, adapter.count) == (whole.value, 6, 5)
    assert (base.low, base.high) == pytest.approx((whole.low, whole.high))
    both = compare(BASE[:5], [value for value in ADAPTER if value is not None], clusters[:5] if clusters else None)
    assert task.row.difference == Change(both.difference, both.low, both.high)
    assert (task.won, task.lost, task.unanswered, task.verdict) == (2, 1, 1, "no difference shown")


def test_classes_have_rows_and_a_radar() -> None:
    (task,) = task_figures(report())
    assert [(row.name, [point.value for point in row.points]) for row in task.classes] == [
        ("law", [0.5, 1.0]),
        ("art", [0.0, 0.5]),
        ("tea", [0.5, 0.0]),
    ]
    ((name, axes),) = radars([task])
    assert (name, axes[1]) == ("mmcu", Axis("art", (0.0, 0.5)))
    drawing = str(radar([*axes, Axis("<b>", (None, 1.0))], 2))
    assert "&lt;b&gt;" in drawing and "<b>" not in drawing
    # The first line's four points: half way up, the middle, half way down, the middle.
    assert '<polygon class="line m1" points="200.0,79.0 200.0,131.0 200.0,183.0 200.0,131.0"/>' in drawing


def test_losses_and_all_figures_are_shown() -> None:
    rows = losses(report())
    assert [(row.name, [point.value for point in row.points]) for row in rows] == [
        ("a", [pytest.approx(5 / 3), pytest.approx(1.4)]),
        ("all rows", [1.0, 1.0]),
    ]
    assert [row.top for row in rows] == pytest.approx([5 / 3] * 2)
    assert [row.name for row in all_figures(report())] == ["mmcu/accuracy", "a/loss", "loss"]


def test_a_figure_that_is_no_mean_has_the_interval_of_its_standard_error() -> None:
    whole = {"eval/own/mcc": 0.5, "eval/own/mcc_stderr": 0.1}
    question = QuestionFacts("own", "0", "Q", "", {"base": Given((), {})})
    task = TaskFacts("own", "", "mcc", 1, 0.0)
    found = EvalReport({"base": ModelFacts("b")}, {"base": whole}, {"eval/own/mcc": 1}, (task,), (question,))
    ((point,),) = [each.row.points for each in task_figures(found)]
    assert (point.value, point.low, point.high) == pytest.approx((0.5, 0.304, 0.696))


def test_answers_are_counted_by_their_length() -> None:
    found = report()
    base, adapter = lengths(found, task_figures(found), (0, 8, 64, 128, 256))
    assert (base.counts, base.median, base.mean_by_bin) == ((1, 2, 2, 1), 92.0, (1.0, 0.0, 0.5, 0.0))
    assert (adapter.counts, adapter.mean_by_bin) == ((1, 2, 2, 0), (1.0, 1.0, 0.0, None))


def test_several_answers_to_a_question_count_by_their_mean_length() -> None:
    several = replace(
        report(), questions=(replace(report().questions[0], given={"base": drawn(), "adapter": drawn()}),)
    )
    (base, _) = lengths(several, task_figures(several), (0, 16, 64, 256))
    assert base.counts == (0, 1, 0) and base.median == 40.0


def drawn() -> Given:
    return Given(("a", "b", "c", "d"), {"accuracy": 1.0}, num_tokens=160)


def test_losses_of_a_tasks_own_questions_are_no_held_out_losses_and_its_classes_share_an_axis() -> None:
    questions = tuple(
        QuestionFacts(
            "perplexity", str(n), "?", "", {"base": Given((), {"loss": 2.0 + n, "bits_per_byte": 1.0 + n})}, g
        )
        for n, g in enumerate(("a", "b"))
    )
    figures = {"base": {"eval/perplexity/loss": 2.5, "eval/perplexity/bits_per_byte": 1.5, "eval/web/loss": 3.0}}
    tasks = (TaskFacts("perplexity", "ab", "bits_per_byte", 2, 1.0),)
    one = EvalReport({"base": ModelFacts("m")}, figures, dict.fromkeys(figures["base"], 2), tasks, questions)
    assert [row.name for row in losses(one)] == ["web"]
    (task,) = task_figures(one)
    assert {row.top for row in task.classes} == {2.0}


def test_page_is_whole_and_asks_for_nothing() -> None:
    page = render_evaluation(report())
    reader = Reader(page)
    assert not {tag for tag, _ in reader.tags} & {"link", "img", "iframe", "object", "a"}
    assert not re.search(r"https?://|@import|url\(", page)
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on") or name in ("src", "href")]
    assert sum(tag == "script" for tag, _ in reader.tags) == 2
    assert "prefers-color-scheme: dark" in page and "max-width: 560px" in page
    assert render_evaluation(report()) == page
    for title in (
        "Tasks",
        "Side by side",
        "Strong and weak sides",
        "mmcu by class",
        "Held-out loss",
        "Length of answers",
    ):
        assert title in reader.texts


def test_texts_of_questions_and_answers_stay_texts() -> None:
    page = render_evaluation(report())
    assert "<script>alert" not in page and "<img" not in page
    first, *_, last = data_of(page)["questions"]
    shown = EVIL.replace("\u2028", "<U+2028>")
    assert first["question"] == f"Question 0? {shown}"
    assert first["given"][1]["texts"] == [f"adapter says {shown}"]
    assert (last["given"][1]["value"], last["given"][1]["problem"]) == (None, f"no answer came {shown}")
    assert any("row 3 mended" in text for text in Reader(page).texts)


def test_three_models_can_be_compared_and_one_stands_alone() -> None:
    page = render_evaluation(report(3))
    assert [model["key"] for model in data_of(page)["models"]] == ["base", "adapter", "champion"]
    assert 'name="second"' in page and 'name="first"' in page
    alone = render_evaluation(report(1))
    assert 'name="second"' not in alone and "won by" not in alone
    assert "<title>Evaluation of base model</title>" in alone


def test_of_many_questions_those_that_differ_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("didact.evaluation.page.page._SHOWN_QUESTIONS", 3)
    page = render_evaluation(report())
    assert [each["id"] for each in data_of(page)["questions"]] == ["1", "2", "4"]
    assert "The 3 of 6 questions" in page


def test_a_report_of_an_earlier_version_has_a_page() -> None:
    old = {
        "base_id": "smollm2",
        "adapter_id": "demo",
        "base": {"eval/chain_sum/accuracy": 0.0},
        "adapter": {"eval/chain_sum/accuracy": 1.0},
        "counts": {"eval/chain_sum/accuracy": 1},
        "examples": [
            {
                **{"task": "chain_sum", "question": "1 + 1", "expected": "2", "base_answer": "3"},
                **{"base_correct": False, "adapter_answer": "2", "adapter_correct": True},
            }
        ],
    }
    page = render_evaluation(EvalReport.from_json(json.dumps(old)))
    assert data_of(page)["questions"][0]["given"][1]["texts"] == ["2"]


def test_losses_alone_have_a_page() -> None:
    page = render_evaluation(replace(report(), questions=(), tasks=()))
    assert "Held-out loss" in page and "Questions and answers" not in page


def test_a_part_with_a_metric_of_its_own_is_no_class_and_is_judged_by_that_metric() -> None:
    found = report()
    given = {"base": Given(("x",), {"word_perplexity": 9.0}), "adapter": Given(("x",), {"word_perplexity": 7.0})}
    prose = QuestionFacts("mmcu", "p", "Prose", "", given, "prose")
    (task,) = task_figures(replace(found, questions=(*found.questions, prose)))
    assert [row.name for row in task.classes] == ["law", "art", "tea"]
    shown = data_of(render_evaluation(replace(found, questions=(*found.questions, prose))))["questions"][-1]
    assert (shown["metric"], shown["up"], [each["value"] for each in shown["given"]]) == (
        "word_perplexity",
        False,
        [9.0, 7.0],
    )


def test_what_training_data_holds_stands_beside_the_figures() -> None:
    how = Searched(5000, "13 words in a row")
    found = report().searched("adapter", how, {("mmcu", "1"): f"rows row 7 holds: {EVIL}"})
    page = render_evaluation(found)
    assert "Questions in the training data" in Reader(page).texts and 'name="seen"' in page
    assert "1 of 6 <small>16.7% [3-56]</small>" in page and "training of adapter holds 1" in page
    (held,) = [each for each in data_of(page)["questions"] if each["given"][1]["seen"]]
    assert held["id"] == "1" and not held["given"][0]["seen"]
    none = render_evaluation(report().searched("adapter", how, {}))
    assert "Training data of adapter holds no question (5,000 rows searched for 13 words in a row)" in none
    assert 'name="seen"' not in none and "Questions in the training data" not in render_evaluation(report())
