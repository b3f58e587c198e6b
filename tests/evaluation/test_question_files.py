import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets.rows.raw_row import BadRow
from didact.errors import DataError
from didact.evaluation.tasks.question_files import QuestionRow, questions_in, read_questions

COLUMNS = ("question", "A", "B", "answer")


def question(row: QuestionRow) -> str | None:
    if row.record.get("answer") == "skip":
        return None
    if not row.record.get("question"):
        raise BadRow("empty_prompt", "the question is empty")
    return f"{row.stem}/{row.number}: {row.record['question']}"


def write(file: Path, *lines: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("name", "lines", "more"),
    [
        ("q.jsonl", ['{"question": "One?"}', '{"question": "Two?"}'], {}),
        ("q.json", ['[{"question": "One?"},', '{"question": "Two?"}]'], {}),
        ("q.json", ['{"canary": "x", "rows": [{"question": "One?"}, {"question": "Two?"}]}'], {"each": "rows"}),
        ("q.json", ["{", '"rows": [{"question": "One?"},', '{"question": "Two?"}]}'], {"each": "rows"}),
        ("q.jsonl", ['{"question": "One?"}', '{"question": "Two?"}'], {"each": "rows"}),
        ("q.csv", ["question,answer", "One?,A", "Two?,B"], {}),
        ("q.csv", ["One?,x,y,A", "Two?,x,y,B"], {"columns": COLUMNS}),
        ("q.csv", ["Question,A,B,Answer", "One?,x,y,A", "Two?,x,y,B"], {"columns": COLUMNS}),
    ],
)
def test_every_container_gives_the_same_rows(tmp_path: Path, name: str, lines: list[str], more: dict[str, Any]) -> None:
    def read(row: QuestionRow) -> str:
        return f"{row.stem}/{row.number}: {row.record.get('question') or row.record['Question']}"

    found = read_questions("exam", write(tmp_path / name, *lines), read, **more)
    assert found.found == ("q/1: One?", "q/2: Two?")
    assert found.left_out == ()


def test_a_folder_of_splits_stands_for_one(tmp_path: Path) -> None:
    for split in ("dev", "test"):
        write(tmp_path / split / "art.jsonl", json.dumps({"question": f"{split}?"}))
    assert read_questions("exam", str(tmp_path), question, split="dev").found == ("art/1: dev?",)
    with pytest.raises(DataError, match=r"evaluation task exam: .* holds dev, test; expected .* folder 'val'"):
        read_questions("exam", str(tmp_path), question, split="val")


def test_rows_that_cannot_be_used_are_named_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl", '{"question": "One?"}', '{"question": }', '{"question": ""}', '{"question": "4?"}'
    )
    with pytest.raises(DataError, match=r"2 of 4 rows .* max_bad_rows_share = 0.01 .*q.jsonl:2 broken_json") as error:
        read_questions("exam", path, question, max_bad_rows_share=0.01)
    assert "q.jsonl:3 empty_prompt (the question is empty)" in str(error.value)
    found = read_questions("exam", path, question, max_bad_rows_share=0.5)
    assert found.found == ("q/1: One?", "q/4: 4?")
    assert len(found.left_out) == 2


def test_rows_that_are_not_wanted_are_no_bad_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", '{"question": "One?", "answer": "skip"}')
    assert read_questions("exam", path, question).found == ()


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluation task exam.*change its path in evaluation.tasks"):
        read_questions("exam", str(tmp_path / "none.jsonl"), question)
    with pytest.raises(DataError, match="holds no rows"):
        read_questions("exam", write(tmp_path / "q.csv", "question,answer"), question)


def test_questions_of_training_rows_are_found(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Is WATER  wet?", "output": "Yes."},
        {"instruction": "Think first. Is fire cold? Say yes or no.", "output": "No."},
    ]
    path = write(tmp_path / "train.jsonl", *map(json.dumps, rows))
    asked = ["Is water wet?", "Is fire cold?", "Is snow warm?"]
    assert questions_in("exam", path, asked) == {"Is water wet?", "Is fire cold?"}
