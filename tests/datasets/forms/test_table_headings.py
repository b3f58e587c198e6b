import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import Conversation, load_dataset
from didact.datasets.forms.table_headings import heading_path, tree_table, web_table
from didact.datasets.rows.raw_row import BadRow
from didact.spec import SourceSpec


def node(row: int, column: int, *children: dict[str, Any]) -> dict[str, Any]:
    return {"row_index": row, "column_index": column, "children": list(children)}


SHIPS = {
    "title": "Ships by harbour",
    "texts": [
        ["harbour", "ships", "", "tons"],
        ["", "steam", "sail", ""],
        ["all", 7, 5, 90.5],
        ["north", 4, None, "40"],
        ["south", 3, 5, "50.5"],
    ],
    "merged_regions": [{"first_row": 0, "last_row": 0, "first_column": 1, "last_column": 2}],
    "top_header_rows_num": 2,
    "left_header_columns_num": 1,
    "top_root": node(-1, -1, node(0, 1, node(1, 1), node(1, 2)), node(0, 3)),
    "left_root": node(-1, -1, node(2, 0, node(3, 0), node(4, 0))),
}
QUESTION = {"id": "q", "table_id": "ships", "question": "How many ships?", "answer": [12.0], "linked_cells": {}}


def load(path: Path, share: float = 0.0, **options: Any) -> list[Conversation]:
    source = SourceSpec(name="rows", path=str(path), options=options)
    return list(load_dataset(source, seed=0, max_bad_rows_share=share, quarantine_dir=path.parent / "q").train)


def refused(path: Path) -> list[str]:
    return [json.loads(line)["reason"] for line in (path.parent / "q" / "rows.jsonl").read_text().splitlines()]


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_headings_on_several_levels_become_paths_of_columns_and_rows(tmp_path: Path) -> None:
    write(tmp_path / "tables/raw/ships.json", SHIPS)
    (conversation,) = load(write(tmp_path / "train_samples.jsonl", QUESTION))
    assert conversation.messages[0].content == (
        "Answer the question from the table.\n\nTable:\nShips by harbour\n"
        "| harbour | ships / steam | ships / sail | tons |\n| --- | --- | --- | --- |\n"
        "| all | 7 | 5 | 90.5 |\n| all / north | 4 |  | 40 |\n| all / south | 3 | 5 | 50.5 |\n\n"
        "Question: How many ships?"
    )
    assert conversation.answer == conversation.messages[1].content == "12"


@pytest.mark.parametrize(
    ("answer", "said"), [([12.5], "12.5"), (["north", "south"], "north, south"), ([3, 0.25], "3, 0.25"), ([-2.0], "-2")]
)
def test_answers_are_written_as_people_write_them(answer: list[Any], said: str, tmp_path: Path) -> None:
    write(tmp_path / "tables/raw/ships.json", SHIPS)
    assert load(write(tmp_path / "a.jsonl", {**QUESTION, "answer": answer}))[0].answer == said


def test_left_headings_of_two_columns_are_one_path() -> None:
    table = tree_table(
        {
            **SHIPS,
            "texts": [["", "", "x"], ["north", "old", "1"], ["", "new", "2"]],
            "top_header_rows_num": 1,
            "left_header_columns_num": 2,
            "top_root": node(-1, -1, node(0, 2)),
            "left_root": node(-1, -1, node(1, 0, node(1, 1), node(2, 1))),
        }
    )
    assert (table["header"], table["rows"]) == (["", "x"], [["north / old", "1"], ["north / new", "2"]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"texts": "x"}, "wrong_type"),
        ({"texts": [["a"], "b"]}, "wrong_type"),
        ({"top_root": node(-1, -1, node(9, 1))}, "wrong_columns"),
        ({"top_root": node(-1, -1, {"row_index": "0", "column_index": 1, "children": []})}, "wrong_type"),
        ({"top_root": {"row_index": -1, "column_index": -1, "children": [1]}}, "wrong_type"),
        ({"left_header_columns_num": -1}, "wrong_type"),
    ],
)
def test_a_broken_table_costs_only_the_questions_on_it(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    write(tmp_path / "tables/raw/ships.json", SHIPS)
    write(tmp_path / "tables/raw/broken.json", {**SHIPS, **change})
    file = write(tmp_path / "a.jsonl", QUESTION, {**QUESTION, "table_id": "broken"}, {**QUESTION, "table_id": "none"})
    assert len(load(file, 1.0)) == 1
    assert refused(file) == [reason, "missing_table"]


PAGE = (
    "<table><thead><tr><td rowspan=2></td><th colspan='2'>House<br/>holds</th><th>All</th></tr>"
    "<tr><th>asked</th><th>%</th><th></th></tr></thead>"
    "<tbody><tr><th>north &amp; east</th><td>9</td><td>90</td><td rowspan='2'>x</td></tr>"
    "<tr><th>south</th><td colspan=2>none</td></tr></tbody></table>"
)


def claim(**fields: Any) -> dict[str, Any]:
    table = {"website_title": "Health", "caption": None, "header_horizontal": [], "rows": [], "html_code": PAGE}
    return {"_id": "1", "claim": "Nine were asked.", "label": "SUPPORTS", "table": table, **fields}


def test_a_web_table_keeps_its_headings_and_the_cells_that_span_others(tmp_path: Path) -> None:
    (conversation,) = load(write(tmp_path / "a.jsonl", claim()), table_form="csv")
    assert conversation.messages[0].content == (
        "What does the table say of the claim? Say supported, refuted or not enough information.\n\nTable:\nHealth\n"
        ",House holds / asked,House holds / %,All\nnorth & east,9,90,x\nsouth,none,,x\n\nClaim: Nine were asked."
    )
    assert conversation.answer == "supported"


def test_a_web_table_without_heading_cells_has_its_first_row_as_header() -> None:
    rows = "".join(f"<tr><td>{row}</td><td>b{row}</td></tr>" for row in range(3))
    assert web_table(f"<table>{rows}</table>") == {"header": ["0", "b0"], "rows": [["1", "b1"], ["2", "b2"]]}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"label": "MAYBE"}, "unknown_label"),
        ({"claim": " "}, "empty_prompt"),
        ({"claim": 3}, "wrong_type"),
        ({"table": {"html_code": "<p>no table</p>"}}, "missing_table"),
        ({"table": {}}, "missing_field"),
        ({"table": {"html_code": "<tr>" + "<td colspan=1000 rowspan=1000>x" * 900 + "<tr>" * 9}}, "too_long"),
    ],
)
def test_claims_that_cannot_be_used_are_refused(fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", claim(), claim(**fields))
    assert len(load(file, 1.0)) == 1
    assert refused(file) == [reason]


@pytest.mark.parametrize(("label", "said"), [("REFUTES", "反驳"), ("NOT ENOUGH INFO", "信息不足")])
def test_chinese_claims_get_chinese_words(label: str, said: str, tmp_path: Path) -> None:
    (conversation,) = load(write(tmp_path / "a.jsonl", claim(claim="有九户接受调查。", label=label)))
    assert "说法" in conversation.messages[0].content
    assert conversation.answer == said


def test_a_dialogue_on_a_report_may_ask_back(tmp_path: Path) -> None:
    record = {
        "table": {"uid": "t", "table": [["", "2019", "2018"], ["Sales", "9", "7"]]},
        "paragraphs": [{"uid": "p", "order": 1, "text": "In millions."}],
        "questions": [
            {"question": "What were sales?", "answer": ["Which year?"], "scale": "", "req_clari": True},
            {"question": "2019", "answer": ["9"], "scale": "million", "req_clari": False},
            {"question": "And the growth?", "answer": 28.57, "scale": "percent", "req_clari": False},
        ],
    }
    (tmp_path / "train.json").write_text(json.dumps([record], indent=1))
    (conversation,) = load(tmp_path / "train.json")
    assert [message.content for message in conversation.messages[1:]] == [
        *("Which year?", "2019", "9 million", "And the growth?", "28.57%")
    ]


def test_a_path_leaves_out_what_is_empty_or_said_twice() -> None:
    assert heading_path(["", "a", "a", " b \n c", "a"]) == "a / b c / a"
    with pytest.raises(BadRow):
        web_table("")
