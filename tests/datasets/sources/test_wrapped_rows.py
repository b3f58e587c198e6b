"""Rows in a list inside a file's one object, or inside each row."""

import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import Dataset, add_card, load_dataset
from didact.datasets.rows.raw_row import MAX_RECORD_BYTES
from didact.errors import DataError
from didact.spec import SourceSpec

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
ROWS = [{"instruction": f"Say {number}", "input": "", "output": f"It is {number}"} for number in range(5)]


def load(path: Path, share: float = 0, **options: Any) -> Dataset:
    source = SourceSpec(name="s", path=str(path), options=options)
    return load_dataset(source, seed=0, max_bad_rows_share=share, quarantine_dir=path.parent / "q")


def answers(dataset: Dataset) -> list[str]:
    return [conversation.messages[-1].content for conversation in dataset.train]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("content", "each"),
    [
        ({"version": "1.0", "data": ROWS}, "data"),
        ({"data": ROWS}, "data"),
        ({"count": 5, "result": {"page": 1, "rows": ROWS}}, "result.rows"),
        (
            {"rows": [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}]},
            "rows",
        ),
        ({"train": ROWS, "test": ROWS[:1]}, "train"),
    ],
)
def test_a_wrapped_file_says_which_list_to_name_and_is_read_by_it(
    content: dict[str, Any], each: str, indent: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content, indent=indent))
    with pytest.raises(
        DataError, match=rf"holds its rows in the list '{each}'; set options\.each: {each}, or .*data add"
    ):
        load(path)
    dataset = load(path, each=each)
    assert answers(dataset) == (["Yes"] if each == "rows" else [row["output"] for row in ROWS])


def test_a_bad_element_costs_itself_and_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [json.dumps(row) for row in ROWS]
    rows[3] = '{"instruction": "no output"}'
    text = '{"version": 1,\n "data": [\n' + ",\n".join(rows) + "\n]}\n"
    path.write_text(text)
    dataset = load(path, share=1, each="data")
    assert answers(dataset) == ["It is 0", "It is 1", "It is 2", "It is 4"]
    (line,) = (tmp_path / "q" / "s.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["line"], entry["byte_offset"]) == (6, text.index(rows[3]))
    path.write_text(text[: text.index(rows[3])])
    with pytest.raises(DataError, match=r"rows\.json is damaged or incomplete"):
        load(path, share=1, each="data")


def test_a_wrapped_file_may_be_longer_than_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    long = "x" * (MAX_RECORD_BYTES // 4)
    path.write_text(json.dumps({"data": [{**row, "output": long} for row in ROWS]}))
    with pytest.raises(DataError, match=r"set options\.each: data"):
        load(path)
    assert load(path, each="data").rows_read == 5


def test_fields_around_the_list_belong_to_each_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"system_prompt": "Be brief.", "data": ROWS}))
    first = load(path, each="data").train[0].messages[0]
    assert (first.role, first.content) == ("system", "Be brief.")
    path.with_suffix(".jsonl").write_text(
        json.dumps({"system": "Be kind.", "data": ROWS}) + "\n" + json.dumps({"data": ROWS})
    )
    dataset = load(path.with_suffix(".jsonl"), each="data")
    assert [len(conversation.messages) for conversation in dataset.train] == [3] * 5 + [2] * 5


@pytest.mark.parametrize(("each", "found"), [("rows", "'data'"), ("data.rows", "options.each"), ("n", "no list")])
def test_a_list_that_is_not_there_is_named(each: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"n": 1, "data": ROWS}, indent=1))
    with pytest.raises(DataError, match=found):
        load(path, each=each)


def test_a_card_keeps_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path / "runs"))
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": [{"ask": row["instruction"], "say": row["output"]} for row in ROWS]}))
    fields = {"instruction": "ask", "output": "say"}
    with pytest.raises(DataError):
        add_card(str(path), "wrapped", fields=fields)
    added = add_card(str(path), "wrapped", fields=fields, options={"each": "data"})
    assert added.card.num_rows == 5
    source = SourceSpec(name="s", path="card:wrapped")
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)
    assert answers(dataset) == [row["output"] for row in ROWS]


def test_chats_whose_turns_look_like_rows_are_no_wrapped_rows(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"conversation": [{"question": "a", "answer": "b"}]}) + "\n")
    assert answers(load(path)) == ["b"]
