import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import MAX_RECORD_BYTES
from didact.datasets.places.locate import LocatedFile
from didact.datasets.readers.columnar import Delimited, read_delimited
from didact.datasets.readers.reading import Layout, read
from didact.datasets.readers.text_files import read_parallel, read_separated
from didact.datasets.rows.options import RowOptions
from didact.datasets.rows.raw_row import RawRow
from didact.datasets.sources.inspection import inspect
from didact.errors import DataError
from didact.spec.data import Format


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def layout(path: Path, format: Format | None = "auto", **options: Any) -> Layout:
    return inspect("s", LocatedFile(path, path.name), RowOptions.model_validate(options), format)


def told(rows: list[RawRow]) -> list[Any]:
    return [row.content if row.fault is None else (row.line, row.byte_offset, row.fault.reason) for row in rows]


def test_quoted_columns_hold_marks_quotes_and_line_breaks_and_positions_stay_right(tmp_path: Path) -> None:
    text = '\ufeffa,b\r\n1,"x, ""y""\r\nz"\r\n\r\n2,5" pipe\r\n3,\r\n'
    rows = list(read_delimited(write(tmp_path / "a.csv", text), Delimited()))
    assert told(rows) == [{"a": "1", "b": 'x, "y"\r\nz'}, {"a": "2", "b": '5" pipe'}, {"a": "3", "b": ""}]
    assert [row.line for row in rows] == [2, 5, 6]
    whole = text.encode()
    assert [whole[row.byte_offset : (row.byte_offset or 0) + 2] for row in rows] == [b"1,", b"2,", b"3,"]


def test_a_bad_line_costs_only_itself_even_with_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    lines = [b"a,b", b"1,2", b'3,"open', b"4,5", b"6", b"7,8,9", b"caf\xe9,1", b"\0,1", b'"x"y,1', b"9,9"]
    path = write(tmp_path / "a.csv", b"\n".join(lines))
    found = told(list(read_delimited(path, Delimited())))
    starts = [sum(len(line) + 1 for line in lines[:place]) for place in range(len(lines))]
    reasons = {3: "broken_csv", 5: "wrong_columns", 6: "wrong_columns", 7: "not_utf8", 8: "nul", 9: "broken_csv"}
    assert [entry for entry in found if isinstance(entry, dict)] == [
        {"a": left, "b": right} for left, right in ("12", "45", "99")
    ]
    bad = [entry for entry in found if isinstance(entry, tuple)]
    assert bad == [(line, starts[line - 1], reason) for line, reason in reasons.items()]


def test_an_open_quote_at_the_end_loses_no_row_after_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n1,"open\n' + "".join(f"{place},x\n" for place in range(50)))
    found = told(list(read_delimited(path, Delimited())))
    assert found[0] == (2, 4, "broken_csv")
    assert found[1:] == [{"a": str(place), "b": "x"} for place in range(50)]


def test_a_row_of_any_length_up_to_the_limit_is_read(tmp_path: Path) -> None:
    long, too_long = "x" * 300_000, "y" * MAX_RECORD_BYTES
    path = write(tmp_path / "a.csv", f"a,b\n1,{long}\n2,{too_long}\n3,last\n")
    rows = list(read_delimited(path, Delimited()))
    assert told(rows)[::2] == [{"a": "1", "b": long}, {"a": "3", "b": "last"}]
    assert rows[1].fault is not None and rows[1].fault.reason == "too_long"
    assert len(rows[1].content) < 10_000
    assert rows[2].byte_offset == path.read_bytes().index(b"3,last")


def test_a_header_that_cannot_be_read_refuses_every_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"a,caf\xe9\n1,2\n3,4\n")
    assert [entry[2] for entry in told(list(read_delimited(path, Delimited())))] == ["not_utf8"] * 3
    assert list(read_delimited(write(tmp_path / "b.csv", ""), Delimited())) == []


@pytest.mark.parametrize(
    ("name", "text", "options", "first"),
    [
        ("a.csv", "ask,answer\n1,2\n", {}, {"ask": "1", "answer": "2"}),
        ("a.csv", "1,2\n", {"columns": ["ask", "answer"]}, {"ask": "1", "answer": "2"}),
        ("a.csv", "ask;answer\n1;2\n", {"delimiter": ";"}, {"ask": "1", "answer": "2"}),
        ("a.tsv", "ask\tanswer\n1\t2\n", {}, {"ask": "1", "answer": "2"}),
        ("a.tsv", 'ask\tanswer\n"1\t2\n', {}, {"ask": '"1', "answer": "2"}),
        ("a.tsv", 'ask\tanswer\n"1"\t2\n', {"quotes": True}, {"ask": "1", "answer": "2"}),
        ("a.tsv", "q\tyes\twhy\n", {}, b"q\tyes\twhy"),
        ("a.csv", "q\n", {"header": False}, b"q"),
    ],
)
def test_columns_are_named_by_the_header_or_by_the_options(
    name: str, text: str, options: dict[str, Any], first: Any, tmp_path: Path
) -> None:
    (row,) = read(layout(write(tmp_path / name, text), **options))
    assert row.content == first


def test_a_header_that_is_declared_is_one_whatever_it_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "x\ty\n1\t2\n")
    assert [row.content for row in read(layout(path))] == [b"x\ty", b"1\t2"]
    with pytest.raises(DataError, match="found the keys 'x', 'y'"):
        layout(path, header=True)
    assert [row.content for row in read(layout(path, None, header=True))] == [{"x": "1", "y": "2"}]


def test_columns_named_twice_over_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"options\.columns.*options\.header"):
        layout(write(tmp_path / "a.csv", "a\n"), columns=["a"], header=True)


def test_lines_without_names_are_told_by_their_first_column(tmp_path: Path) -> None:
    for name, text, header, form in [
        ("a.tsv", "q\tyes\twhy\n", False, "cot_tsv"),
        ("b.tsv", "to title\ttext\ttitle\n", False, "csl"),
        ("c.tsv", "ask\tanswer\nq\ta\n", True, "consultation"),
        ("d.csv", "ask,answer\nto title,a\n", True, "consultation"),
    ]:
        found = layout(write(tmp_path / name, text))
        assert (found.header, found.form) == (header, form)
    for name, text in [("e.csv", "q,yes,why\n1,2,3\n"), ("f.jsonl", '{"q": 1, "yes": 2, "why": 3}\n')]:
        with pytest.raises(DataError, match="found the keys 'q', 'yes', 'why'"):
            layout(write(tmp_path / name, text))


def test_parallel_files_are_joined_line_by_line(tmp_path: Path) -> None:
    files = {
        "question": write(tmp_path / "q", "one\n\nthree\r\nfour\n"),
        "answer": write(tmp_path / "a", b"1\n2\ncaf\xe9\n4"),
    }
    rows = list(read_parallel(files))
    assert told(rows) == [
        {"question": "one", "answer": "1"},
        {"question": "", "answer": "2"},
        (3, 5, "not_utf8"),
        {"question": "four", "answer": "4"},
    ]


def test_texts_with_end_marks_are_cut_apart_wherever_a_read_stops(tmp_path: Path) -> None:
    bodies = ["User: hi\n\nBot: yo", "x" * 65_530, "<|end", "last\n"]
    content = "<|endoftext|>\n".join(bodies) + "<|endoftext|>\n \n"
    rows = list(read_separated(write(tmp_path / "a.txt", content)))
    assert [row.content for row in rows] == [{"text": body.strip()} for body in bodies]
    assert [content.encode()[row.byte_offset :][:4].decode() for row in rows] == [body[:4] for body in bodies]
    assert [row.line for row in rows] == [1, 4, 5, 6]
    bad = write(tmp_path / "b.txt", b"caf\xe9<|endoftext|>" + b"y" * (MAX_RECORD_BYTES + 9) + b"<|endoftext|>ok")
    assert told(list(read_separated(bad)))[0][2] == "not_utf8"
    long, last = list(read_separated(bad))[1:]
    assert long.fault is not None and long.fault.reason == "too_long"
    assert (last.content, last.byte_offset) == ({"text": "ok"}, bad.stat().st_size - 2)
    assert json.dumps(last.content)
