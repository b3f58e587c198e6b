"""Belle-eval, MT-bench, Vicuna-bench and comparisons: from their files to what is asked and what it is worth."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.evaluation.asks import Ask, Generation
from didact.evaluation.judge import Judged
from didact.evaluation.tasks import build_task
from didact.spec import (
    BelleEvalTask,
    CompareTask,
    EvaluationSpec,
    JudgingSpec,
    MtBenchTask,
    VicunaBenchTask,
    absolute_task_paths,
)
from tests.conftest import shared_data
from tests.fakes.asking import Reply, asked

TASKS = {
    "belle_eval": BelleEvalTask,
    "mt_bench": MtBenchTask,
    "vicuna_bench": VicunaBenchTask,
    "compare": CompareTask,
}
JUDGE = {"endpoint": {"url": "http://localhost:1/v1", "model": "wise"}}


def build(**fields: Any) -> Judged:
    """The task, as an evaluation file names it."""
    task = build_task(TASKS[fields["task"]].model_validate(fields))
    assert isinstance(task, Judged)
    return task


def write(path: Path, rows: list[Mapping[str, Any]], array: bool = False) -> str:
    text = json.dumps(rows, ensure_ascii=False) if array else "\n".join(json.dumps(row) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return str(path)


def shown(ask: Ask) -> tuple[str, str]:
    """What a judge is told, and its material."""
    assert isinstance(ask, Generation) and ask.to == "judge" and isinstance(ask.prompt, tuple)
    return ask.prompt[0].content, ask.prompt[1].content


BELLE = [
    {"question": "一加一等于几？", "std_answer": "2", "class": "math"},  # noqa: RUF001
    {"question": "写一首诗。", "std_answer": "", "class": "generation"},
    {"question": "根据上文，谁来了？", "std_answer": "他", "class": "closed\u00a0qa"},  # noqa: RUF001
    {"question": "谁？", "std_answer": "她", "class": "Closed QA"},  # noqa: RUF001
    {"question": "Say it backwards.", "std_answer": None, "class": "puzzles"},
]


@pytest.mark.parametrize("array", [False, True])
def test_belle_eval_finds_the_words_for_every_class(array: bool, tmp_path: Path) -> None:
    task = build(task="belle_eval", path=write(tmp_path / "eval_set.json", BELLE, array))
    assert (task.name, task.metric, len(task.questions)) == ("belle_eval", "score", 5)
    assert [each.group for each in task.questions] == ["math", "generation", "closed_qa", "closed_qa", "puzzles"]
    assert task.corrections == (
        "class 'Closed QA' read as 'closed qa': 1 questions",
        "class 'closed\\xa0qa' read as 'closed qa': 1 questions",
        "class 'puzzles' has no criteria and is judged by general ones: 1 questions",
    )
    told = [shown(asked(task, each, lambda ask: "Score: 1")[1][1]) for each in task.questions]
    assert "最终结果必须正确" in told[0][0] and "参考答案 " in told[0][1]
    assert "文字通顺" in told[1][0] and "参考答案" not in told[1][0] + told[1][1]
    assert (
        "只依据问题中提供的信息" in told[2][0] and told[2][0].split("标准")[1][:20] == told[3][0].split("标准")[1][:20]
    )
    assert "does what the question asks" in told[4][0]


def test_belle_eval_scores_from_0_to_1(tmp_path: Path) -> None:
    task = build(task="belle_eval", path=write(tmp_path / "eval_set.json", BELLE), max_new_tokens=7)
    score, asks = asked(task, task.questions[0], lambda ask: "2" if ask.to == "model" else "对。\n得分: 0.75")
    assert asks[0] == Generation((Message("user", BELLE[0]["question"]),), 7)
    assert score.values["score"] == 0.75


def test_belle_eval_by_its_right_answers_asks_no_judge(tmp_path: Path) -> None:
    path = write(tmp_path / "eval_set.json", BELLE)
    fields = {"task": "belle_eval", "path": path, "by": "reference"}
    task = build_task(BelleEvalTask.model_validate(fields))
    assert (task.name, task.metric) == ("belle_eval", "rougeL")
    assert [each.expected for each in task.questions] == ["2", "他", "她"]
    assert task.corrections[-1] == "without std_answer, left out: 2 of 5 questions"
    score, asks = asked(task, task.questions[1], lambda ask: "他来" if ask.to == "model" else "judged")
    assert len(asks) == 1 and score.values["rougeL"] == pytest.approx(2 / 3)
    assert EvaluationSpec.model_validate({"tasks": [fields]}).judge is None
    alone = write(tmp_path / "alone.json", [BELLE[1]])
    with pytest.raises(DataError, match=r"no question has a std_answer, which by: reference compares"):
        build_task(BelleEvalTask.model_validate({**fields, "path": alone}))


def test_rows_that_are_none_are_named_and_too_many_stop_it(tmp_path: Path) -> None:
    rows = [*BELLE, {"question": " ", "class": "math"}, {"question": "q"}]
    path = write(tmp_path / "eval_set.json", rows)
    with pytest.raises(DataError, match=r"2 of 7 rows .*eval_set.json:6.*question is empty.*field 'class' is missing"):
        build(task="belle_eval", path=path)
    task = build(task="belle_eval", path=path, max_bad_rows_share=0.5)
    assert len(task.questions) == 5
    assert [line.split(":")[0] for line in task.corrections].count("left out") == 2


BENCH = [
    {"question_id": 81, "category": "writing", "turns": ["Write a line.", "Shorter."]},
    {"question_id": 101, "category": "coding", "turns": ["1+1?", "Twice that?"]},
]
REFERENCES = [
    {"question_id": 101, "model_id": "gpt-4", "choices": [{"index": 0, "turns": ["It is 2.", "It is 4."]}]},
    {"question_id": 7, "choices": [{"index": 0, "turns": ["x"]}]},
]


def bench(tmp_path: Path, **fields: Any) -> Judged:
    path = write(tmp_path / "question.jsonl", BENCH)
    references = write(tmp_path / "gpt-4.jsonl", REFERENCES)
    return build(**{"task": "mt_bench", "path": path, "references": references, **fields})


def scores_by_turn(ask: Ask) -> Reply:
    assert isinstance(ask, Generation) and isinstance(ask.prompt, tuple)
    if ask.to != "judge":
        return f"{ask.to} says {len(ask.prompt)}"
    return "Score: 9" if "QUESTION 2" in ask.prompt[1].content else "Score: 4"


def test_mt_bench_asks_both_turns_and_scores_each(tmp_path: Path) -> None:
    task = bench(tmp_path)
    score, asks = asked(task, task.questions[1], scores_by_turn)
    assert asks[1] == Generation(
        (Message("user", "1+1?"), Message("assistant", "model says 1"), Message("user", "Twice that?")), 1024
    )
    assert [ask.to for ask in asks] == ["model", "model", "judge", "judge"]
    assert {name: score.values[name] for name in ("score", "turn_1", "turn_2")} == {
        **{"score": 6.5, "turn_1": 4, "turn_2": 9}
    }
    (first, one), (second, two) = shown(asks[2]), shown(asks[3])
    assert "2 turns" not in first and "2 turns" in second
    assert "It is 2." in one and "It is 4." not in one and "model says 3" not in one
    assert "It is 4." in two and "model says 1" in two and "model says 3" in two
    assert "the code or explanation solves the task" in first and "from 1 (worst) to 10 (best)" in first
    _, asks = asked(task, task.questions[0], scores_by_turn)
    assert "reference" not in shown(asks[2])[0]
    assert task.corrections == ("references of questions that are not asked: 1, the first '7'",)
    assert [each.group for each in task.questions] == ["writing", "coding"]


def test_mt_bench_compares_with_a_rival_in_both_orders(tmp_path: Path) -> None:
    def prefers_the_model(ask: Ask) -> Reply:
        assert isinstance(ask, Generation) and isinstance(ask.prompt, tuple)
        if ask.to != "judge":
            return f"{ask.to} says {len(ask.prompt)}"
        first = re.search(r"ANSWER A[ 12]* \w+ BEGINS =====\n(\w+)", ask.prompt[1].content)
        assert first is not None
        return "Verdict: A" if first[1] == "model" else "Verdict: B"

    task = bench(tmp_path, by="pairwise")
    score, asks = asked(task, task.questions[1], prefers_the_model)
    assert Counter(ask.to for ask in asks) == {"model": 2, "rival": 2, "judge": 4}
    assert asks[3] == Generation(
        (Message("user", "1+1?"), Message("assistant", "rival says 1"), Message("user", "Twice that?")),
        1024,
        to="rival",
    )
    assert (task.metric, score.values["win_rate"], score.values["flipped"]) == ("win_rate", 1.0, 0.0)


def test_vicuna_bench_has_one_turn(tmp_path: Path) -> None:
    row = {"question_id": 1, "category": "common-sense", "turns": ["Why is the sky blue?"]}
    task = build(task="vicuna_bench", path=write(tmp_path / "question.jsonl", [row]))
    score, asks = asked(task, task.questions[0], lambda ask: "Score: 7" if ask.to == "judge" else "Light.")
    assert (len(asks), score.values["score"]) == (2, 7)
    assert "turn_1" not in score.values
    assert task.questions[0].group == "common_sense"


QUESTIONS = [
    {"question": "1+1?", "answer": "2", "class": "math"},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "answer": "Hello"},
    {"instruction": "Add.", "input": "1 2", "output": "3"},
]


def test_compare_with_reference_answers(tmp_path: Path) -> None:
    task = build(task="compare", name="mine", path=write(tmp_path / "q.jsonl", QUESTIONS), against="reference")
    assert [[turn.content for turn in each.messages] for each in task.questions] == [
        *[["1+1?"], ["Be brief.", "Hi"], ["Add.\n\n1 2"]],
    ]
    score, asks = asked(task, task.questions[0], lambda ask: "two" if ask.to == "model" else "Verdict: B")
    assert [ask.to for ask in asks] == ["model", "judge", "judge"]
    assert (task.name, score.values["win_rate"], score.values["flipped"]) == ("mine", 0.5, 1.0)
    material = shown(asks[1])[1]
    assert material.index("two") < material.index("\n2\n") and "REFERENCE" not in material
    swapped = shown(asks[2])[1]
    assert swapped.index("\n2\n") < swapped.index("two")


def test_compare_with_a_rival_shows_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('question,answer\n1+1?,2\n"Who, me?",\n', encoding="utf-8")
    task = build(task="compare", path=str(path))
    _, asks = asked(task, task.questions[0], lambda ask: "Verdict: A" if ask.to == "judge" else ask.to)
    assert [ask.to for ask in asks] == ["model", "rival", "judge", "judge"]
    assert "REFERENCE ANSWER" in shown(asks[2])[1]
    with pytest.raises(DataError, match=r"1 of 2 rows .*there is no answer to compare with"):
        build(task="compare", path=str(path), against="reference")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"answer": "x"}, "there is no question"),
        ({"messages": []}, "no list of turns"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "expected role"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "ends with a turn",
        ),
    ],
)
def test_questions_that_are_none_are_named(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        build(task="compare", path=write(tmp_path / "q.jsonl", [row]))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"judge": {}}, "found nothing; expected endpoint, base or adapter"),
        ({"judge": {**JUDGE, "base": "x"}}, "expected one of them"),
        (
            {"tasks": [{"task": "belle_eval", "path": "x"}]},
            r"tasks.0 \(belle_eval\) needs a judge; set evaluation.judge",
        ),
        (
            {"tasks": [{"task": "questions", "name": "mine", "path": "x", "scorer": "judge"}]},
            r"tasks.0 \(questions\) needs a judge; set evaluation.judge",
        ),
        ({"tasks": [{"task": "compare", "path": "x"}], "judge": JUDGE}, r"tasks.0 \(compare\) compares with a rival"),
        ({"tasks": [{"task": "mt_bench", "path": "x", "by": "pairwise"}], "judge": JUDGE}, "compares with a rival"),
        ({"tasks": [{"task": "belle_eval", "path": "x", "samples": 2}], "judge": JUDGE}, "scores one answer"),
        ({"tasks": [{"task": "belle_eval", "path": "x", "few_shot": 2}], "judge": JUDGE}, "asked as they are"),
        ({"tasks": [{"task": "belle_eval", "path": "x", "by": "reference", "judging": {}}]}, "asks no judge"),
    ],
)
def test_evaluations_that_cannot_be_meant_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EvaluationSpec.model_validate(fields)


def test_files_and_folders_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    task = MtBenchTask(task="mt_bench", path="q.jsonl", references="r.jsonl", judging=JudgingSpec(criteria="c.jsonl"))
    evaluation = EvaluationSpec.model_validate({"judge": {"base": "base"}, "rival": {"base": "smollm2-135m-instruct"}})
    found = absolute_task_paths(evaluation.model_copy(update={"tasks": (task,)}))
    (moved,) = found.tasks
    assert isinstance(moved, MtBenchTask)
    assert [moved.path, moved.references, moved.judging.criteria] == [
        str(tmp_path / name) for name in ("q.jsonl", "r.jsonl", "c.jsonl")
    ]
    assert found.judge is not None and found.judge.base == str(tmp_path / "base")
    assert found.rival is not None and found.rival.base == "smollm2-135m-instruct"


def test_the_real_belle_eval_loses_no_question() -> None:
    folder = shared_data() / "eval" / "belle_eval"
    task = build(
        task="belle_eval",
        path=str(folder / "eval_set.json"),
        judging={"criteria": str(folder / "eval_prompt.json"), "language": "zh"},
    )
    counts = Counter(each.group for each in task.questions)
    assert counts == {
        **{"open_qa": 285, "brainstorming": 179, "rewrite": 131, "generation": 98, "math": 75, "classification": 65},
        **{"closed_qa": 52, "summarization": 40, "code": 38, "extract": 37},
    }
    assert sum(not each.expected for each in task.questions) == 369
    assert task.corrections == ("class 'closed\\xa0qa' read as 'closed qa': 52 questions",)
    # Every question has words of its class, its own prompt file's and this program's.
    plain = build(task="belle_eval", path=str(folder / "eval_set.json"))
    for each in (task, plain):
        assert all(each.judge.criteria.known(question.group) for question in each.questions)
    own = {group: task.judge.criteria.of(group, "zh") for group in counts}
    assert len(set(own.values())) >= 8 and "得分:" in own["closed_qa"]


def test_the_real_benches_have_their_references() -> None:
    folder = shared_data() / "eval" / "llm_judge"
    task = build(
        task="mt_bench",
        path=str(folder / "mt_bench" / "question.jsonl"),
        references=str(folder / "mt_bench" / "reference_answer" / "gpt-4.jsonl"),
    )
    assert len(task.questions) == 80 and task.corrections == ()
    with_reference = {each.group for each in task.questions if each.expected}
    assert with_reference == {"math", "reasoning", "coding"}
    assert all(len(each.data["turns"]) == 1 for each in task.questions)
    vicuna = build(task="vicuna_bench", path=str(folder / "vicuna_bench" / "question.jsonl"))
    assert len(vicuna.questions) == 80 and all(each.data["turns"] == [] for each in vicuna.questions)
