"""A source read in parts is the source read whole, whatever the size of the parts."""

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from didact.datasets.conversion import convert
from didact.datasets.digests import digest_file
from didact.datasets.drafts import RowSettings
from didact.datasets.generated import generated_rows
from didact.datasets.opening import open_source
from didact.datasets.parts import counted_parts
from didact.datasets.rows import RawRow
from didact.spec import SourceSpec

GOOD = b'{"instruction": "a", "output": "caf\xc3\xa9"}'
FILES = {
    "lines": b"\n".join([GOOD, b"", b"[]", GOOD, b"x" * 50, GOOD]) + b"\n",
    "no last line end": GOOD + b"\n" + GOOD,
    "windows": b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + GOOD + b"\r\n",
    "blank": b"\n\n\n" + GOOD + b"\n\n",
    "one line": GOOD,
}


def rows(path: Path, part_bytes: int, **fields: str) -> list[list[RawRow]]:
    opened = open_source(SourceSpec(name="s", path=str(path), **fields), part_bytes)
    # Parts travel to other machines.
    return [list(pickle.loads(pickle.dumps(part)).rows()) for part in opened.parts]


@pytest.mark.parametrize("kind", FILES)
def test_parts_of_lines_hold_every_row_once_in_its_place(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(FILES[kind])
    ((*whole,),) = rows(path, 1 << 20, format="alpaca")
    assert whole and whole[0].line >= 1
    for part_bytes in range(1, len(FILES[kind]) + 2):
        found = rows(path, part_bytes, format="alpaca")
        assert [row for part in found for row in part] == whole, part_bytes
        assert len(found) == -(-len(FILES[kind]) // part_bytes)


def test_columns_without_names_are_read_in_parts_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("".join(f"question {row}\tyes\tbecause\n" for row in range(20)))
    (whole,) = rows(path, 1 << 20)
    found = rows(path, 100)
    assert len(found) == 5 and [row for part in found for row in part] == whole and len(whole) == 20


def test_row_groups_of_parquet_are_parts(tmp_path: Path) -> None:
    records = [{"instruction": f"a {row}", "output": "b"} for row in range(100)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=10)
    (whole,) = rows(tmp_path / "a.parquet", 1 << 20)
    assert [row.line for row in whole] == list(range(1, 101))
    found = rows(tmp_path / "a.parquet", 1)
    assert len(found) == 10 and [row for part in found for row in part] == whole


def test_a_generator_is_divided_by_its_items(tmp_path: Path) -> None:
    whole = list(generated_rows("chain_sum", 7, {"seed": 3}, 0, 7))
    assert whole == [
        *generated_rows("chain_sum", 7, {"seed": 3}, 0, 4),
        *generated_rows("chain_sum", 7, {"seed": 3}, 4, 7),
    ]
    parts = counted_parts("reasoning-gym:chain_sum", "reasoning_gym", lambda start, stop: (start, stop), 120_000)
    assert [part.read() for part in parts] == [(0, 50_000), (50_000, 100_000), (100_000, 120_000)]
    assert sorted(part.key for part in parts) == [part.key for part in parts]


def test_files_that_cannot_be_divided_are_one_part_each(tmp_path: Path) -> None:
    records = [{"instruction": f"a {row}", "output": "b"} for row in range(50)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(record).replace("a ", "c ") for record in records))
    found = rows(tmp_path, 500)
    assert sorted(len(part) for part in found)[-1] == 50 and sum(map(len, found)) == 100
    assert len(found) == 1 + -(-(tmp_path / "b.jsonl").stat().st_size // 500)


def test_a_part_counts_its_own_rows_and_keeps_batches_small(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes((GOOD + b"\n") * 1300 + b"[]\n")
    (part,) = open_source(SourceSpec(name="s", path=str(tmp_path / "a.jsonl"))).parts
    batches = list(convert(part, RowSettings()))
    assert [batch.num_rows for batch in batches] == [1024, 277]
    assert [each.row for batch in batches for each in batch.accepted] == list(range(1300))
    assert [len(batch.rejects) for batch in batches] == [0, 1]


def test_a_digest_is_recalled_only_while_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n2\n3")
    first = digest_file(path, 2)
    assert (first.size, first.newlines) == (5, (0, 1, 2))
    path.write_bytes(b"1\n2\n4")
    assert digest_file(path, 2).sha256 != first.sha256
