import json
from pathlib import Path

import pytest

from didact.errors import DataError
from didact.evaluation import Answer, Task, Text, build_task, last_number, task_texts
from didact.evaluation.scorers.numbers import is_number
from didact.spec import Gsm8kTask, HeldOutTask, ReasoningGymTask
from tests.conftest import shared_data

EASY = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}


def chain_sum(**changes: object) -> ReasoningGymTask:
    return ReasoningGymTask(
        **{"task": "reasoning_gym", "name": "chain_sum", "options": EASY, "num_items": 8, **changes}
    )


def gsm8k(path: Path | str, num_items: int = 50) -> Gsm8kTask:
    return Gsm8kTask(task="gsm8k", path=str(path), num_items=num_items)


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def built(spec: ReasoningGymTask | Gsm8kTask) -> Task:
    task = build_task(spec)
    assert task is not None
    return task


def correct(task: Task, texts: list[str]) -> list[bool]:
    answers = [(Answer((Text(text, 1, "stop"),)),) for text in texts]
    scores = [task.score(question, given) for question, given in zip(task.questions, answers, strict=True)]
    return [score.values["accuracy"] == 1.0 for score in scores]


def test_the_right_number_counts_in_any_sentence() -> None:
    items = built(chain_sum())
    for form in ("{}", "The sum is {}.", "First 1, so:\n#### {}", "{}.0"):
        assert all(correct(items, [form.format(item.expected) for item in items.questions]))
    for form in ("", "I do not know", "{}1", "{} or rather 1000"):
        assert not any(correct(items, [form.format(item.expected) for item in items.questions]))


def test_answers_that_are_not_numbers_are_compared_as_stripped_text() -> None:
    items = built(ReasoningGymTask(task="reasoning_gym", name="letter_counting", num_items=1))
    assert items.questions[0].expected.isdigit()
    items = built(ReasoningGymTask(task="reasoning_gym", name="spell_backward", num_items=4))
    assert all(correct(items, [f"  {item.expected}\n" for item in items.questions]))
    assert not any(correct(items, [f"It is {item.expected}" for item in items.questions]))


def test_a_scorer_that_cannot_read_the_text_means_wrong() -> None:
    items = built(ReasoningGymTask(task="reasoning_gym", name="prime_factorization", num_items=3))
    assert correct(items, ["I cannot say"] * 3) == [False] * 3
    assert correct(items, [item.expected for item in items.questions]) == [True] * 3


def test_items_without_one_expected_answer_have_an_empty_one() -> None:
    items = built(ReasoningGymTask(task="reasoning_gym", name="graph_color", num_items=2))
    assert [item.expected for item in items.questions] == ["", ""]
    assert correct(items, ["", "{}"]) == [False, False]


def test_generated_questions_are_repeatable_and_differ_from_trainings_seed() -> None:
    questions = [item.text for item in built(chain_sum()).questions]
    assert questions == [item.text for item in built(chain_sum()).questions]
    fresh = [item.text for item in built(chain_sum(options={**EASY, "seed": 1_000_003})).questions]
    other = [item.text for item in built(chain_sum(options={**EASY, "seed": 42})).questions]
    assert questions == fresh
    assert not set(questions) & set(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "chain_sums"}, "did you mean chain_sum"),
        ({"options": {"terms": 3}}, "no option 'terms'"),
        ({"options": {"min_terms": 5, "max_terms": 2}}, "chain_sum: options"),
        ({"options": {"size": 5}}, "num_items"),
    ],
)
def test_a_generator_that_cannot_be_made_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        built(chain_sum(**changes))


def test_all_of_gsm8ks_test_set_is_read_and_its_own_answers_are_correct() -> None:
    path = shared_data() / "eval" / "gsm8k" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    items = built(gsm8k(path, len(rows)))
    assert len(items.questions) == len(rows) == 1319
    assert {item.text for item in items.questions} == {row["question"] for row in rows}
    assert all(is_number(item.expected) for item in items.questions)
    solutions = {row["question"]: row["answer"] for row in rows}
    assert all(correct(items, [solutions[item.text] for item in items.questions]))
    assert not any(correct(items, [f"{last_number(item.expected)}7" for item in items.questions]))


def test_gsm8k_items_are_a_repeatable_random_choice(tmp_path: Path) -> None:
    rows = [{"question": f"q{index}", "answer": f"so\n#### {index}"} for index in range(100)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    chosen = [item.text for item in built(gsm8k(path, 10)).questions]
    assert len(set(chosen)) == 10
    assert chosen == [item.text for item in built(gsm8k(path, 10)).questions]
    assert chosen != [row["question"] for row in rows[:10]]
    assert len(built(gsm8k(path, 500)).questions) == 100


GOOD = {"question": "1 + 1?", "answer": "#### 2"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answer": "no mark 5"}, "expected a number after ####"),
        ({"question": "q", "answer": "#### five"}, "expected a number after ####"),
        ({"question": "q", "answer": 5}, "'answer' is '5', expected text"),
        ({"question": "q"}, "'answer' is 'None', expected text"),
        (["q", "a"], "found list, expected an object"),
    ],
)
def test_a_bad_gsm8k_row_is_named_by_file_and_line(row: object, message: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [GOOD, GOOD, row])
    with pytest.raises(DataError, match=rf"1 of 3 rows .*rows\.jsonl:3 .*{message}"):
        built(gsm8k(path))


def test_files_that_are_no_json_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n{broken\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.jsonl:3 broken_json"):
        built(gsm8k(path))
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no rows"):
        built(gsm8k(path))
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2 not_utf8"):
        built(gsm8k(path))
    with pytest.raises(DataError, match=r"there is no file or folder .*absent\.jsonl"):
        built(gsm8k(tmp_path / "absent.jsonl"))


def test_questions_of_all_tasks_as_texts(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "g.jsonl", [{"question": "One and one?", "answer": "#### 2"}])
    texts = list(task_texts([HeldOutTask(task="held_out"), gsm8k(file, 1), chain_sum()]))
    assert [text.set_name for text in texts] == ["gsm8k"] + ["chain_sum"] * 8
    assert (texts[0].item, texts[0].text) == ("0", "One and one?")
    assert [text.text for text in texts[1:]] == [item.text for item in built(chain_sum()).questions]
