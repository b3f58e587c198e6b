import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.forms.sql import write_sql
from didact.datasets.forms.table_of_forms import recognise
from didact.datasets.forms.table_text import Table, TableForm, TableLayout, make_table, write_table
from didact.datasets.rows.raw_row import BadRow
from didact.errors import DataError
from didact.spec import SourceSpec

TABLE = make_table([["Year", "Team | side", "Wins"], ["2001", 'A "x", <b>\nc', 3], ["2002", None, 4.5]], "Results")
GRID = make_table(
    [[f"c{column}" for column in range(4)]] + [[f"{row}.{column}" for column in range(4)] for row in range(5)]
)


def load(path: Path, quarantine: Path | None = None, **options: Any) -> Dataset:
    source = SourceSpec(name="rows", path=str(path), options=options)
    return load_dataset(source, seed=0, max_bad_rows_share=1.0, quarantine_dir=quarantine)


def reasons(dataset: Dataset) -> list[str]:
    assert dataset.quarantine is not None
    return [json.loads(line)["reason"] for line in dataset.quarantine.read_text().splitlines()]


def test_markdown_keeps_every_cell_on_its_line() -> None:
    assert write_table(TABLE, TableLayout()).splitlines() == [
        "Results",
        "| Year | Team \\| side | Wins |",
        "| --- | --- | --- |",
        '| 2001 | A "x", <b> c | 3 |',
        "| 2002 |  | 4.5 |",
    ]


def test_csv_and_html_are_read_back_as_they_were() -> None:
    title, _, text = write_table(TABLE, TableLayout("csv")).partition("\n")
    assert title == "Results"
    assert [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))] == [TABLE.header, *TABLE.rows]

    class Cells(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[tuple[str, str]] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag in ("th", "td"):
                self.found.append((tag, ""))

        def handle_data(self, data: str) -> None:
            if self.found and data.strip() and self.get_starttag_text() in ("<th>", "<td>"):
                tag, text = self.found[-1]
                self.found[-1] = (tag, text + data)

    cells = Cells()
    cells.feed(write_table(TABLE, TableLayout("html")))
    assert cells.found[:4] == [("th", "Year"), ("th", "Team | side"), ("th", "Wins"), ("td", "2001")]
    assert cells.found[4] == ("td", 'A "x", <b>\nc')
    assert len(cells.found) == 9


def test_key_and_value_names_every_cell() -> None:
    assert write_table(TABLE, TableLayout("key_value")).splitlines()[1] == (
        'Row 1: Year = 2001; Team | side = A "x", <b> c; Wins = 3'
    )
    assert "第1行" in write_table(TABLE, TableLayout("key_value", "zh"))
    assert write_table(Table(("a", "b"), ()), TableLayout("key_value")) == "a; b"


@pytest.mark.parametrize("form", ["markdown", "csv", "html", "key_value"])
def test_limits_keep_the_header_and_say_what_was_cut(form: TableForm) -> None:
    text = write_table(GRID, TableLayout(form, max_rows=2, max_columns=3))
    for kept in ("c0", "c1", "c2", "0.0", "1.2"):
        assert kept in text
    for cut in ("c3", "0.3", "2.0", "4.3"):
        assert cut not in text
    assert text.endswith(
        "[3 of 5 rows are left out; the first 2 are shown]\n[1 of 4 columns are left out; the first 3 are shown]"
    )
    assert "left out" not in write_table(GRID, TableLayout(form, max_rows=5, max_columns=4))
    assert "省略3行" in write_table(GRID, TableLayout(form, "zh", max_rows=2))


def test_short_rows_are_filled_and_wrong_ones_are_refused() -> None:
    assert make_table([["1"]], header=["a", "b"]) == Table(("a", "b"), (("1", ""),))
    for rows in ([], [[]], [["a"], ["1", "2"]], ["ab"], [["a"], [{}]], [None]):
        with pytest.raises(BadRow):
            make_table(rows)


HEADER = ["Name", 'the "age"']


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"sel": 0, "agg": 0, "conds": []}, 'SELECT "Name" FROM data'),
        (
            {"sel": 1, "agg": 3, "conds": [[0, 0, "O'Hara"], [1, 1, 5]]},
            'SELECT COUNT("the ""age""") FROM data WHERE "Name" = \'O\'\'Hara\' AND "the ""age""" > 5',
        ),
        (
            {"sel": 0, "agg": 0, "conds": {"column_index": [0], "operator_index": [0], "condition": ["x"]}},
            'SELECT "Name" FROM data WHERE "Name" = \'x\'',
        ),
        (
            {"sel": [0, 1], "agg": [0, 5], "cond_conn_op": 2, "conds": [[0, 2, "x"], [0, 3, "y"]]},
            'SELECT "Name", SUM("the ""age""") FROM data WHERE "Name" = \'x\' OR "Name" <> \'y\'',
        ),
    ],
)
def test_queries_are_written_in_sql(query: dict[str, Any], text: str) -> None:
    assert write_sql(query, HEADER) == text


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"sel": 2, "agg": 0, "conds": []},
        {"sel": -1, "agg": 0, "conds": []},
        {"sel": True, "agg": 0, "conds": []},
        {"sel": 0, "agg": 9, "conds": []},
        {"sel": 0, "agg": 0, "conds": [[0, 0]]},
        {"sel": 0, "agg": 0, "conds": [[0, 0, None]]},
        {"sel": [], "agg": [], "cond_conn_op": 0, "conds": []},
        {"sel": 0, "agg": 0, "conds": {"column_index": [0], "operator_index": [], "condition": ["x"]}},
    ],
)
def test_queries_that_stand_for_nothing_are_refused(query: dict[str, Any]) -> None:
    with pytest.raises(BadRow):
        write_sql(query, HEADER)


def wtq(folder: Path, context: str = "csv/1-csv/7.csv") -> Path:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "csv" / "1-csv").mkdir(parents=True, exist_ok=True)
    (folder / "csv" / "1-csv" / "7.csv").write_text('"Name","Says"\n"Ann","a \\"b\\", c"\n', "utf-8")
    path = folder / "data" / "dev.tsv"
    path.write_text(f"id\tutterance\tcontext\ttargetValue\nnt-0\twho?\t{context}\tAnn\\pe|Bo\n")
    return path


def test_a_question_is_given_the_table_that_it_names(tmp_path: Path) -> None:
    (conversation,) = load(wtq(tmp_path), table_form="csv").train
    assert conversation.messages[0].content == (
        'Answer the question from the table.\n\nTable:\nName,Says\nAnn,"a ""b"", c"\n\nQuestion: who?'
    )
    assert conversation.answer == conversation.messages[1].content == "Ann|e, Bo"


def test_a_change_of_a_table_changes_the_fingerprint(tmp_path: Path) -> None:
    path = wtq(tmp_path)
    before = load(path).fingerprint
    assert load(path).fingerprint == before
    (tmp_path / "csv" / "1-csv" / "7.csv").write_text('"Name"\n"Bo"\n')
    assert load(path).fingerprint != before


@pytest.mark.parametrize("context", ["csv/1-csv/8.csv", "../secret.csv", "/etc/passwd", "csv", ""])
def test_a_table_that_is_missing_or_outside_its_folder_costs_its_question(context: str, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    path = wtq(tmp_path, context)
    with path.open("a") as file:
        file.write("nt-1\twho?\tcsv/1-csv/7.csv\tAnn\n")
    dataset = load(path, tmp_path / "q")
    assert (len(dataset.train), reasons(dataset)) == (1, ["missing_table"])


def test_tables_may_lie_where_the_options_say(tmp_path: Path) -> None:
    path = wtq(tmp_path)
    (tmp_path / "csv").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"1 \(missing_table 1\) rejected"):
        load(path, tmp_path / "q")
    assert "options.tables" in (tmp_path / "q" / "rows.jsonl").read_text()
    assert len(load(path, tables="../elsewhere").train) == 1
    assert len(load(path, tables=str(tmp_path / "elsewhere")).train) == 1


def test_tables_in_one_file_are_found_by_name_and_a_bad_one_tells_why(tmp_path: Path) -> None:
    tables = [{"id": "t1", "header": ["城市"], "rows": [["长沙"]]}, {"id": "t2", "rows": []}]
    (tmp_path / "val.tables.json").write_text("".join(json.dumps(table) + "\n" for table in tables) + "{\n")
    query = {"agg": [0], "cond_conn_op": 0, "sel": [0], "conds": []}
    rows = [{"table_id": name, "question": "哪个城市", "sql": query} for name in ("t1", "t2", "t3")]
    path = tmp_path / "val.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = load(path, tmp_path / "q")
    assert dataset.train[0].messages[1].content == 'SELECT "城市" FROM data'
    assert dataset.train[0].messages[0].content.startswith("根据表格写出")
    assert reasons(dataset) == ["missing_field", "missing_table"]


def test_several_questions_on_one_table_are_turns_of_one_conversation(tmp_path: Path) -> None:
    tatqa = {
        "table": {"uid": "u", "table": [["", "2019"], ["Sales", "5"]]},
        "paragraphs": [{"order": 1, "text": "In millions."}],
        "questions": [
            {"question": "Sales?", "answer": ["5", 6], "scale": "million"},
            {"question": "Growth?", "answer": 2.5, "scale": "percent"},
        ],
    }
    finqa = {"pre_text": ["Before."], "post_text": ["After."], "table": [["a"], ["1"]], "id": "x"}
    finqa["qa"] = {"question": "How much?", "answer": "", "exe_ans": 1.5, "program": "add(1, 0.5)"}
    assert (recognise(tatqa), recognise(finqa)) == ("tatqa", "finqa")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(tatqa) + "\n")
    (conversation,) = load(path).train
    said = [message.content for message in conversation.messages]
    assert said[1:] == ["5, 6 million", "Growth?", "2.5%"]
    assert "In millions." in said[0] and "| Sales | 5 |" in said[0]
    path.write_text(json.dumps(finqa) + "\n")
    (conversation,) = load(path).train
    assert conversation.answer == "1.5"
    assert conversation.messages[0].content.index("Before.") < conversation.messages[0].content.index("| 1 |")
