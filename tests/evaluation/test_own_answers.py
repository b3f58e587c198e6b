"""What rows say is right: in the forms of published data, one option alone, and part of the task's version."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from didact.errors import DataError
from didact.evaluation.questions import Score
from didact.evaluation.tasks import build_task
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import QuestionsTask
from tests.fakes.asking import asked


def task_of(file: Path, **settings: Any) -> TextTask:
    task = build_task(QuestionsTask(**{"task": "questions", "name": "mine", "path": str(file), **settings}))
    assert isinstance(task, TextTask)
    return task


def own(tmp_path: Path, rows: list[Any], **settings: Any) -> TextTask:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return task_of(tmp_path / "mine.jsonl", **settings)


def said(task: TextTask, text: str) -> Score:
    return asked(task, task.questions[0], lambda _: text)[0]


SQUAD = {"text": ["Ada", "Lovelace", "Ada"], "answer_start": [3, 7, 3]}


@pytest.mark.parametrize(
    ("given", "answers"),
    [
        ({"answers": SQUAD}, ["Ada", "Lovelace"]),
        ({"answer": SQUAD}, ["Ada", "Lovelace"]),
        (
            {"answers": [{"text": "Ada", "answer_start": 3}, {"text": "Lovelace", "answer_start": 7}]},
            ["Ada", "Lovelace"],
        ),
        ({"answers": json.dumps(SQUAD)}, ["Ada", "Lovelace"]),  # as in a table of columns
        ({"answers": {"text": "Ada", "answer_start": 3}}, ["Ada"]),
        ({"answer": {"value": "Ada", "aliases": ["Countess of Lovelace", "Ada"]}}, ["Ada", "Countess of Lovelace"]),
        ({"answer": [1843, None, True]}, ["1843", "true"]),
        ({"answers": "[1843, 1852]"}, ["1843", "1852"]),
        ({"answer": '[ "Ada", "Lovelace" ]'}, ["Ada", "Lovelace"]),
        ({"answer": "[1843, 1852]"}, ["[1843, 1852]"]),  # an interval, or a list that a program prints
    ],
)
def test_answers_are_read_in_the_forms_of_published_data(given: Any, answers: list[str], tmp_path: Path) -> None:
    task = own(tmp_path, [{"question": "Who?", **given}])
    assert task.questions[0].data["answers"] == answers
    assert said(task, answers[-1]).values["accuracy"] == 1


@pytest.mark.parametrize("answer", [{"name": "Ada"}, [["Ada"]], [{"name": "Ada"}], [{"text": "Ada", "born": 1815}], {}])
def test_an_answer_that_no_text_can_equal_is_refused(answer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine\.jsonl:1 .*(expected a text, a number, a list of these|has no answer)"):
        own(tmp_path, [{"question": "Who?", "answer": answer}])


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ({"b": 1, "a": 2}, '{"a": 2, "b": 1}', '{"a": 2}'),
        ([1, 2], "[1, 2]", "1"),
        ("Paris", '"Paris"', '"Rome"'),
        ('{"a": [1]}', '{"a": [1]}', '{"a": 1}'),
        (True, "true", "1"),
        (SQUAD, json.dumps(SQUAD), '"Ada"'),
    ],
)
def test_json_is_compared_with_the_value_of_the_row(answer: Any, right: str, wrong: str, tmp_path: Path) -> None:
    task = own(tmp_path, [{"question": "Q", "answer": answer, "schema": {}}], scorer="json_schema")
    assert [said(task, text).values["accuracy"] for text in (right, wrong)] == [1, 0]


def test_several_json_values_may_be_accepted(tmp_path: Path) -> None:
    task = own(tmp_path, [{"question": "Q", "answers": [[1], {"a": 1}], "schema": {}}], scorer="json_schema")
    assert [said(task, text).values["accuracy"] for text in ("[1]", '{"a": 1}', "1")] == [1, 1, 0]


def test_an_accepted_answer_must_be_as_its_schema_says(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["a"]}
    with pytest.raises(DataError, match=r"its answer \[1\] is not as its schema says"):
        own(tmp_path, [{"question": "Q", "answer": [1], "schema": schema}], scorer="json_schema")
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    scorer = {"name": "json_schema", "schema_file": str(tmp_path / "schema.json")}
    with pytest.raises(DataError, match="is not as its schema says"):
        own(tmp_path, [{"question": "Q", "answer": {"b": 1}}], scorer=scorer)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"answer": 2, "options": [1, 2, 3]},
            "'2' may mean C as a number from 0, B as an option's own words; say which",
        ),
        ({"answer": "2", "options": ["1", "2", "3"]}, "may mean C"),
        ({"answer": "B", "options": ["B", "A"]}, "may mean B as a letter, A as an option's own words"),
        ({"answer": "A", "options": ["red", "red", "blue"]}, "its options A and B are both 'red'"),
        ({"answer": "A", "options": ["red", "blue ", " blue"]}, "its options B and C are both 'blue'"),
        ({"answer": ["A", "B"], "options": ["x", "y", "z"]}, "it has 2 answers"),
    ],
)
def test_a_key_that_may_mean_two_options_is_refused(row: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        own(tmp_path, [{"question": "Q", **row}], scorer="choice")


def test_what_a_key_is_may_be_said(tmp_path: Path) -> None:
    row = {"question": "Q", "answer": 2, "options": [1, 2, 3]}
    right = {"number": "C", "text": "B"}
    for kind, label in right.items():
        task = own(tmp_path, [row], scorer={"name": "choice", "key": kind})
        assert [said(task, letter).values["accuracy"] for letter in "ABC"] == [float(each == label) for each in "ABC"]
    with pytest.raises(DataError, match="'2' is the letter of none of the options A, B, C"):
        own(tmp_path, [row], scorer={"name": "choice", "key": "letter"})


@pytest.mark.parametrize(
    "value",
    [date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), Decimal("1.50"), b"x", [datetime(2026, 1, 2)]],
)
def test_a_column_of_any_type_leaves_the_others_in_the_version(value: Any, tmp_path: Path) -> None:
    def version(name: str, **row: Any) -> str:
        table = pyarrow.Table.from_pylist([{"question": "Q", "answer": "A", "hint": "x", "when": value, **row}])
        parquet.write_table(table, tmp_path / f"{name}.parquet")
        return task_of(tmp_path / f"{name}.parquet").version

    first = version("first")
    assert first == version("again")
    assert first != version("hint", hint="y")
