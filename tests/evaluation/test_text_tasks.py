import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from didact.datasets.conversation import Message
from didact.errors import DataError, SpecError
from didact.evaluation.asks import Answer, Ask, Generation, Text
from didact.evaluation.questions import Question
from didact.evaluation.scorers import build_scorer
from didact.evaluation.tasks import build_task
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import EvaluationSpec, Gsm8kTask, ReasoningGymTask, TextQuestionTask, validate
from tests.fakes.asking import asked

ROWS = [
    {"question": "One and two?", "answer": "Add: 1+2=<<1+2=3>>3.\n#### 3"},
    {"question": "Two and two?", "answer": "2+2=4\n#### 4"},
    {"question": "Ten?", "answer": "#### 10"},
]


def means(task: TextTask, reply: Callable[[Ask], str]) -> dict[str, float]:
    """Mean of each metric over the questions that have it."""
    scores = [asked(task, question, reply)[0] for question in task.questions]
    found: dict[str, list[float]] = {}
    for name, value in itertools.chain.from_iterable(score.values.items() for score in scores):
        found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def words_of(ask: Ask) -> str:
    assert isinstance(ask, Generation) and isinstance(ask.prompt, tuple)
    return ask.prompt[-1].content


def gsm8k(folder: Path, rows: list[Any] = ROWS, **settings: Any) -> TextTask:
    path = folder / "gsm8k.jsonl"
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    task = build_task(Gsm8kTask(task="gsm8k", path=str(path), num_items=10, **settings))
    assert isinstance(task, TextTask)
    return task


def test_gsm8k_is_scored_by_the_last_number(tmp_path: Path) -> None:
    said = {"One and two?": "1 + 2 = 3", "Two and two?": "22", "Ten?": "no idea"}
    task = gsm8k(tmp_path)
    assert [(each.id, each.expected, each.rationale) for each in task.questions] == [
        ("0", "3", "Add: 1+2=3."),
        ("1", "4", "2+2=4"),
        ("2", "10", ""),
    ]
    assert means(task, lambda ask: said[words_of(ask)]) == {
        "accuracy": pytest.approx(1 / 3),
        "unread": pytest.approx(1 / 3),
        "answer_tokens": pytest.approx(18 / 3),
        "cut": 0.0,
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "x", "answer": "no mark"}, "expected a number after ####"),
        ({"question": "x", "answer": "#### ten"}, "'#### ten', expected a number"),
        ({"question": 3, "answer": "#### 3"}, "'question' is '3', expected text"),
        ({"answer": "#### 3"}, "'question' is 'None', expected text"),
        ("{", "broken_json"),
        ('["a"]', "not_an_object"),
    ],
)
def test_a_row_that_is_none_of_gsm8k_is_named_with_its_line(row: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 4 rows .*gsm8k\.jsonl:4") as error:
        gsm8k(tmp_path, [*ROWS, row])
    assert said in str(error.value)


def test_gsm8k_without_rows_or_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        gsm8k(tmp_path, [])
    with pytest.raises(DataError, match="absent"):
        build_task(Gsm8kTask(task="gsm8k", path=str(tmp_path / "absent.jsonl")))


def test_worked_examples_come_from_another_file(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in reversed(ROWS)))
    task = gsm8k(tmp_path, ROWS[:1], few_shot=2, examples=str(train), prompt="step_by_step")
    (ask,) = task.asks(task.questions[0], ())
    assert isinstance(ask, Generation) and isinstance(ask.prompt, tuple)
    assert [turn.content.split("\n\nThink")[0] for turn in ask.prompt] == [
        *("Ten?", "Answer: 10", "Two and two?", "2+2=4\nAnswer: 4", "One and two?")
    ]
    assert task.version != gsm8k(tmp_path, ROWS[:1], prompt="step_by_step").version
    with pytest.raises(DataError, match=r"few_shot: 3 asks for more worked examples than there are \(0\)"):
        gsm8k(tmp_path, few_shot=3)


def test_reasoning_gym_takes_its_examples_from_another_seed() -> None:
    task = build_task(ReasoningGymTask(task="reasoning_gym", name="chain_sum", num_items=2, few_shot=2))
    assert isinstance(task, TextTask)
    asked = {each.text for each in task.questions}
    assert len(task.examples) == 2 and not asked & {each.text for each in task.examples}
    right = {each.text: each.expected for each in [*task.questions, *task.examples]}
    assert means(task, lambda ask: f"It is {right[words_of(ask)]}")["accuracy"] == 1


def plain_task(scorer: str = "number", questions: tuple[str, ...] = ("One?", "Two?"), **settings: Any) -> TextTask:
    rows = [Question(str(place), (Message("user", text),), str(place)) for place, text in enumerate(questions)]
    return TextTask.of("plain", TextQuestionTask(**settings), rows, build_scorer(scorer))


def test_samples_are_drawn_together_and_the_vote_counts() -> None:
    task = plain_task(samples=4)
    (ask,) = task.asks(task.questions[1], ())
    assert isinstance(ask, Generation)
    assert (ask.num_samples, ask.temperature) == (4, 0.7)
    said = Answer(
        tuple(
            Text(each, tokens, end)
            for each, tokens, end in (("2", 1, "stop"), ("so 1", 2, "stop"), ("hm", 8, "length"), ("1.0", 1, "stop"))
        )
    )
    assert task.asks(task.questions[1], (said,)) == ()
    assert task.score(task.questions[1], (said,)).values == {
        **{"accuracy": 1.0, "unread": 0.25, "agreement": 0.5, "answer_tokens": 3.0, "cut": 0.25},
        **{"pass_at_1": 0.5, "pass_at_2": pytest.approx(5 / 6), "pass_at_4": 1.0, "maj_at_4": 1.0},
    }


def test_reasoning_is_cut_and_corrupted_and_asked_again() -> None:
    def reply(ask: Ask) -> str:
        assert isinstance(ask, Generation)
        if not ask.opening:
            return "One is 1. One more is 2. So it is 1.\nAnswer: 1"
        return "1" if ask.opening.count(".") > 1 else "7"

    task = plain_task(questions=("Zero?", "One?"), prompt="step_by_step", faithfulness=True)
    score, asks = asked(task, task.questions[1], reply)
    assert len(asks) == 1 + 5 + 1 + 1
    assert score.values["accuracy"] == 1
    assert {name: value for name, value in score.values.items() if name.startswith("faithfulness")} == {
        "faithfulness/early/0": 1.0,
        "faithfulness/early/25": 1.0,
        "faithfulness/early/50": 0.0,
        "faithfulness/early/75": 0.0,
        "faithfulness/early/area": 0.375,
        "faithfulness/mistake": 0.0,
    }


def test_a_text_without_an_answer_is_unread_and_says_why() -> None:
    task = plain_task("exact", prompt="step_by_step", max_new_tokens=3)
    said = ("I would say\nAnswer: 0", "It is 0", " ")
    named, unmarked, silent = (asked(task, task.questions[0], lambda _, text=text: text)[0] for text in said)
    assert (named.values["accuracy"], named.values["unread"]) == (1, 0)
    assert (unmarked.values["accuracy"], unmarked.values["unread"]) == (0, 1)
    assert unmarked.note == "the text names no answer"
    assert (silent.values["unread"], silent.note) == (1, "the model ended without a word")
    lost = task.score(task.questions[0], (Answer((Text("It is 0", 3, "length"),)),))
    assert (lost.values["unread"], lost.values["cut"]) == (1, 1)


def test_a_number_without_a_mark_is_read_and_counted_as_such() -> None:
    task = plain_task(prompt="step_by_step")
    marked, unmarked = (
        asked(task, task.questions[1], lambda _, text=text: text)[0] for text in ("Answer: 1", "It is 1")
    )
    assert (marked.values["accuracy"], marked.values["unmarked"]) == (1, 0)
    assert (unmarked.values["accuracy"], unmarked.values["unmarked"], unmarked.values["unread"]) == (1, 1, 0)
    assert "unmarked" not in asked(plain_task(), task.questions[1], lambda _: "1")[0].values


def test_no_text_at_all_is_a_problem_and_no_wrong_answer() -> None:
    task = plain_task(prompt="step_by_step", faithfulness=True)
    assert task.asks(task.questions[0], (Answer(),)) == ()
    score = task.score(task.questions[0], (Answer(),))
    assert (score.values, score.problem) == ({}, "the model gave no text")


def test_a_task_without_questions_is_refused() -> None:
    with pytest.raises(DataError, match="evaluation task plain: it has no questions"):
        plain_task(questions=())


def test_the_version_holds_what_decides_figures() -> None:
    def changed(change: Callable[[Question], Question]) -> TextTask:
        task = plain_task()
        return replace(task, questions=tuple(map(change, task.questions)))

    tasks = [
        plain_task(),
        plain_task("exact"),
        plain_task(prompt="answer_only"),
        plain_task(samples=2),
        plain_task(questions=("One?", "Three?")),
        changed(lambda each: replace(each, data={"answers": ["a"]})),
        changed(lambda each: replace(each, messages=(Message("system", "S"), *each.messages))),
    ]
    assert len({task.version for task in tasks}) == len(tasks)
    assert plain_task().version == tasks[0].version
    assert plain_task(num_items=5).version == tasks[0].version


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"samples": 4, "temperature": 0}, "are all the same"),
        ({"faithfulness": True}, "set prompt: step_by_step"),
        ({"faithfulness": True, "prompt": "step_by_step", "samples": 2}, "samples: 1"),
        ({"prompt": "step by step"}, "'direct', 'answer_only' or 'step_by_step'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    tasks = {"tasks": [{"task": "gsm8k", "path": "rows.jsonl", **settings}]}
    with pytest.raises(SpecError, match=said):
        validate(EvaluationSpec, tasks, "my.yaml")
