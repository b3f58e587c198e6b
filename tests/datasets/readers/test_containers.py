import json
import re
from pathlib import Path

import pytest

from didact.datasets import MAX_RECORD_BYTES, load_dataset
from didact.datasets.readers.json_files import read_array, read_lines
from didact.datasets.rows.raw_row import Damage
from didact.errors import DataError
from didact.spec import SourceSpec

ROWS = [
    {"text": 'brackets ]}[{ , and "quotes" \\'},
    {"nested": {"list": [1, [2, {"x": "]"}]]}},
    7,
    "a, b",
    None,
    [],
    {},
]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("indent", [None, 0, 4])
def test_every_element_of_an_array_is_cut_out_whole(indent: int | None, tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", b"\xef\xbb\xbf \n" + json.dumps(ROWS, indent=indent).encode())
    rows = list(read_array(file))
    assert [json.loads(row.content) for row in rows] == ROWS
    whole = file.read_bytes()
    for row in rows:
        assert whole[row.byte_offset :].startswith(row.content)
        assert row.line == whole[: row.byte_offset].count(b"\n") + 1


@pytest.mark.parametrize(
    ("broken", "good", "offset", "rest"),
    [
        (b'[{"a": 1}, , {"a": 3}]', 2, 11, b","),
        (b'[{"a": 1}, {"a": 2},]', 2, 20, b"]"),
        (b'[,{"a": 1}]', 1, 1, b","),
        (b'[{"a": }, {"a": 2}]', 2, None, b""),
        (b'[{"a": "x "y" z"}, {"a": 2}]', 2, None, b""),
        (b'[{"a": "x}, {"}, {"a": 2}]', 2, None, b""),
        (b'[{"a": "x\ny"}, {"a": 2}]', 2, None, b""),
    ],
)
def test_an_element_whose_end_is_known_costs_itself_only(
    broken: bytes, good: int, offset: int | None, rest: bytes, tmp_path: Path
) -> None:
    rows = list(read_array(write(tmp_path / "a.json", broken)))
    assert sum(row.fault is None for row in rows) == good
    bad = [row for row in rows if row.fault is not None]
    assert [(row.byte_offset, row.content) for row in bad] == ([] if offset is None else [(offset, rest)])


def test_an_empty_array_holds_no_rows(tmp_path: Path) -> None:
    assert list(read_array(write(tmp_path / "a.json", b" [ \n ] \n"))) == []


def test_many_unpaired_quotes_do_not_slow_the_scan_down(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", b'[{"a": 1}, ' + b'"' + b'\\"' * 500_000)
    with pytest.raises(Damage):
        list(read_array(file))


def test_the_record_limit_counts_the_row_without_its_line_end(tmp_path: Path) -> None:
    longest = b"x" * MAX_RECORD_BYTES
    file = write(tmp_path / "a.jsonl", longest + b"\n" + longest + b"y\nlast\n")
    exact, too_long, last = read_lines(file)
    assert exact.fault is None and exact.content == longest
    assert too_long.fault is not None and too_long.fault.reason == "too_long"
    assert (last.line, last.byte_offset, last.content) == (3, 2 * MAX_RECORD_BYTES + 3, b"last")


def test_line_separators_inside_a_text_do_not_end_a_row(tmp_path: Path) -> None:
    content = "a\u2028b\x0bc\x85d\re".encode()
    (row,) = read_lines(write(tmp_path / "a.jsonl", content + b"\n"))
    assert row.content == content


def test_elements_on_one_line_are_told_apart_by_their_number(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"instruction": f"q{place}", "output": "a"} for place in range(300)]
    rows[256]["output"] = 7
    keyed = {f"row {place}": row for place, row in enumerate(rows)}
    for name, content in (("a.json", json.dumps(rows)), ("b.json", json.dumps(keyed)), ("c.jsonl", "")):
        path = tmp_path / name
        path.write_text(content or "".join(json.dumps(row) + "\n" for row in rows))
        source = SourceSpec(name="s", path=str(path), format="alpaca")
        dataset = load_dataset(source, seed=0, max_bad_rows_share=0.1, quarantine_dir=tmp_path)
        assert dataset.quarantine is not None
        entry = json.loads(dataset.quarantine.read_text())
        line, element = (257, None) if name == "c.jsonl" else (1, 257)
        assert (entry["line"], entry.get("element")) == (line, element)
        where = f"{path}:{line}" + (f" (element {element})" if element else "")
        with pytest.raises(DataError, match=re.escape(f"First: {where} wrong_type")):
            load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)


def test_a_row_over_the_limit_says_what_it_mostly_is(tmp_path: Path) -> None:
    good = '{"instruction": "a", "output": "b"}'
    for name, text in (
        ("a.jsonl", f"{good}\n" + good * 400_000 + f"\n{good}\n"),
        ("a.csv", "instruction,output\na,b\n" + "c," * 6_000_000 + f"\nc,{good[:2]}\n"),
    ):
        (tmp_path / name).write_text(text)
        source = SourceSpec(name="s", path=str(tmp_path / name))
        with pytest.raises(DataError, match=rf"{name}:[23] too_long \(1[0-9],[0-9,]+ bytes; .*line ends are lost"):
            load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)
