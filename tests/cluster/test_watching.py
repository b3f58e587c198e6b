"""What an evaluation shows while it runs."""

import io
import math

import pytest
from rich.console import Console

from didact.cluster.watching import Following, watched
from didact.datasets.conversation import Message
from didact.evaluation import Answer, Question, Score, Scored
from didact.evaluation.statistics import mean_interval
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import QuestionTask
from tests.fakes.scripted import ScriptedModel

MODEL = ScriptedModel(lambda ask: "", name="demo[3]")
QUESTIONS = tuple(Question(str(n), (Message("user", "?"),), passage=f"p{n // 2}") for n in range(20))
TASK = TextTask.of("sums", QuestionTask(), QUESTIONS, lambda question, text: Score(), "1")


def scored(number: int, value: float | None) -> Scored:
    score = Score(problem="no answer") if value is None else Score({"accuracy": value})
    return Scored(QUESTIONS[number], (Answer(),), score)


def test_the_figure_so_far_has_the_interval_of_the_statistics() -> None:
    following = Following()
    for number, value in enumerate((1.0, 0.0, 1.0, None, 1.0)):
        row = following.add(TASK, MODEL, scored(number, value))
    of = mean_interval([1, 0, 1, 1], ["p0", "p0", "p1", "p2"])
    assert (row.done, row.total, row.problems) == (5, 20, 1)
    assert row.figure == f"0.750 [{of.low:.3f}, {of.high:.3f}]"


def test_where_chance_cannot_be_told_the_figure_stands_alone() -> None:
    following = Following()
    assert following.add(TASK, MODEL, scored(0, math.nan)).figure == ""
    assert following.add(TASK, MODEL, scored(1, 0.5)).figure == "0.500"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_lives_on_a_terminal_and_lines_come_elsewhere(terminal: bool) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=120, color_system=None)
    with watched(console) as told:
        for number in range(20):
            told(TASK, MODEL, scored(number, None if number == 7 else float(number % 2)))
    text = written.getvalue()
    if terminal:
        assert "20/20" in text and "━" * 20 in text and "demo[3]" in text and "1 without a score" in text
        return
    lines = text.splitlines()
    assert len(lines) == 11, "the first one, and ten more"
    assert lines[0].startswith("sums  demo[3]  1/20  accuracy 0.000 [")
    assert lines[-1].startswith("sums  demo[3]  20/20  accuracy 0.474 [") and lines[-1].endswith("1 without a score")


def test_nothing_is_written_before_the_first_question() -> None:
    written = io.StringIO()
    with watched(Console(file=written, force_terminal=False)):
        pass
    assert written.getvalue() == ""
