import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import Conversation, Dataset, Message, load_dataset
from didact.errors import DataError
from didact.spec import SourceSpec

TURNS = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Bye")]
ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
SHAREGPT = {
    "id": "x",
    "conversations": [
        {"from": sender, "value": text}
        for sender, (_, text) in zip(("system", "human", "gpt", "user", "assistant"), TURNS, strict=True)
    ],
}
MESSAGES = {"messages": [{"role": role, "content": text} for role, text in TURNS]}


def load(path: Path | str, **fields: object) -> Dataset:
    source = SourceSpec(name="rows", path=str(path), **fields)
    return load_dataset(source, seed=0, max_bad_rows_share=1.0, quarantine_dir=None)


def reasons(path: Path, folder: Path, form: str) -> list[str]:
    source = SourceSpec(name="rows", path=str(path), format=form)
    dataset = load_dataset(source, seed=0, max_bad_rows_share=1.0, quarantine_dir=folder)
    assert dataset.quarantine is not None
    return [json.loads(line)["reason"] for line in dataset.quarantine.read_text().splitlines()]


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.txt"])
@pytest.mark.parametrize(("record", "form"), [(ALPACA, "alpaca"), (SHAREGPT, "sharegpt"), (MESSAGES, "messages")])
def test_each_form_is_recognised_in_lines_and_arrays(name: str, record: Any, form: str, tmp_path: Path) -> None:
    lines = load(write_lines(tmp_path / name, [record, record])).train
    (tmp_path / "array.json").write_text(json.dumps([record, record], indent=2))
    assert load(tmp_path / "array.json").train == lines
    assert load(tmp_path / name, format=form).train == lines
    turns = [("user", "Add.\n\n1 and 2"), ("assistant", "3")] if form == "alpaca" else TURNS
    assert lines[1] == Conversation(tuple(Message(role, text) for role, text in turns), row=1)
    assert lines[1].prompt == lines[1].messages[:-1]


@pytest.mark.parametrize("empty", ["", " \n", None, "absent"])
def test_an_alpaca_row_without_input_is_its_instruction(empty: str | None, tmp_path: Path) -> None:
    record = {"instruction": "Say hi.\n", "output": "hi"} | ({} if empty == "absent" else {"input": empty})
    (conversation,) = load(write_lines(tmp_path / "a.jsonl", [record])).train
    assert conversation.messages[0].content == "Say hi.\n"


def test_a_cot_row_is_question_rationale_and_closing_answer(tmp_path: Path) -> None:
    text = 'Pick.\\nOptions:\\n- "a"\t"a"\t"A" is\\nfirst.\n'
    (tmp_path / "rows.tsv").write_text(text)
    (conversation,) = load(tmp_path / "rows.tsv").train
    assert conversation.messages[0] == Message("user", 'Pick.\nOptions:\n- "a"')
    assert conversation.messages[1] == Message("assistant", '"A" is\nfirst.\nThe answer is "a".')
    assert conversation.answer == '"a"'


def test_cot_rows_with_wrong_or_empty_columns_are_rejected(tmp_path: Path) -> None:
    rows = ["question\tyes\twhy", "question\tyes", "a\tb\tc\td", "q\t \twhy", "q\tyes\t", "\tyes\twhy", "\t\t", "  "]
    (tmp_path / "rows.tsv").write_text("\n".join(rows))
    found = reasons(tmp_path / "rows.tsv", tmp_path, "cot_tsv")
    assert found == ["wrong_columns"] * 2 + ["empty_output"] * 2 + ["empty_prompt", "empty_output"]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "wrong_turns"),
        (["system"], "wrong_turns"),
        (["user"], "wrong_turns"),
        (["assistant"], "wrong_turns"),
        (["assistant", "user"], "wrong_turns"),
        (["system", "assistant"], "wrong_turns"),
        (["user", "narrator"], "unknown_role"),
    ],
)
def test_turns_without_a_question_and_its_answer_are_rejected(turns: list[str], reason: str, tmp_path: Path) -> None:
    record = {"messages": [{"role": role, "content": "text"} for role in turns]}
    assert reasons(write_lines(tmp_path / "a.jsonl", [record, MESSAGES]), tmp_path, "messages") == [reason]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("text", "wrong_type"),
        (["text"], "wrong_type"),
        ([{"role": "user", "content": 3}], "wrong_type"),
        ([{"role": 1, "content": "text"}], "wrong_type"),
        ([{"role": "user"}], "missing_field"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}], "empty_output"),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}], "empty_prompt"),
    ],
)
def test_turns_of_wrong_shape_are_rejected(messages: object, reason: str, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"messages": messages}, MESSAGES])
    assert reasons(file, tmp_path, "messages") == [reason]


def test_an_unknown_form_names_the_keys_found_and_the_forms_known(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'question', 'reply'\. The nearest forms are (\w+ \([a-z_, ]+\)(; )?){5}; docs"
    ):
        load(write_lines(tmp_path / "a.jsonl", [{"question": "a", "reply": "b"}]))
    (tmp_path / "b.json").write_text('{"instruction": "a",\n{"output": "b"}\n')
    with pytest.raises(DataError, match=r"line 1 is no record: broken_json"):
        load(tmp_path / "b.json")


def test_bad_first_rows_do_not_hide_the_form(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"instruction": \n[1]\n{"instruction": "no output"}\n' + json.dumps(ALPACA))
    dataset = load(file)
    assert (len(dataset.train), dataset.rows_rejected) == (1, 3)


def test_a_folder_and_a_glob_are_read_each_file_in_its_own_form(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", [MESSAGES])
    (tmp_path / "a.tsv").write_text("question\tyes\twhy\n")
    (tmp_path / "c.json").write_text(json.dumps([ALPACA]))
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / ".b.jsonl.1.tmp.jsonl").write_text("half written")
    (tmp_path / "inner").mkdir()
    write_lines(tmp_path / "inner" / "d.jsonl", [ALPACA])
    folder = load(tmp_path)
    assert sorted(len(conversation.messages) for conversation in folder.train) == [2, 2, 5]
    assert [conversation.row for conversation in folder.train] == [0, 1, 2]
    assert load(f"{tmp_path}/*.[jt]s*").train == folder.train
    assert load(f"{tmp_path}/**/*.jsonl").rows_read == 2


@pytest.mark.parametrize("path", ["nothing.jsonl", "empty", "*.jsonl"])
def test_a_path_without_files_names_the_source_and_field(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"'rows'.*data\.sources"):
        load(tmp_path / path)


def test_a_format_that_cannot_fit_the_path_is_refused(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [ALPACA])
    for path, form in [(str(file), "reasoning_gym"), ("reasoning-gym:chain_sum", "alpaca"), ("hf:a/b", "cot_tsv")]:
        with pytest.raises(DataError, match="format"):
            load(path, format=form)
