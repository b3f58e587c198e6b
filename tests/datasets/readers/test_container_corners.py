"""Containers as other tools write them: in several parts, compressed inside, with types of their own."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from didact.datasets import load_dataset
from didact.errors import DataError
from didact.spec import SourceSpec

ROWS = [{"instruction": f"说 {number}", "input": "", "output": f'答 {number}, "q"'} for number in range(3)]
ANSWERS = [row["output"] for row in ROWS]
LINES = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\r\n" for row in ROWS)
CHATS: dict[str, list[dict[str, Any]]] = {
    "messages": [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]} for text in ANSWERS
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": text}]} for text in ANSWERS
    ],
}


def answers(path: Path, **fields: Any) -> list[str]:
    source = SourceSpec(name="rows", path=str(path), **fields)
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0.0, quarantine_dir=None)
    return [conversation.messages[-1].content for conversation in dataset.train]


def zst(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zst)])
def test_an_archive_of_several_parts_is_read_to_its_end(suffix: str, pack: Any, tmp_path: Path) -> None:
    file = tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(pack(LINES[:50]) + pack(LINES[50:]))
    assert answers(file) == ANSWERS


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_feather_files_are_read_whatever_they_are_compressed_with(compression: Any, tmp_path: Path) -> None:
    feather.write_feather(pa.Table.from_pylist(ROWS), str(tmp_path / "a.feather"), compression=compression)
    assert answers(tmp_path / "a.feather") == ANSWERS


@pytest.mark.parametrize("form", CHATS)
def test_chats_in_nested_columns_are_recognised(form: str, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(CHATS[form]), tmp_path / "a.parquet")
    assert answers(tmp_path / "a.parquet") == ANSWERS


def test_text_held_as_large_strings_and_dictionaries_is_text(tmp_path: Path) -> None:
    columns = {key: pa.array([row[key] for row in ROWS], pa.large_string()).dictionary_encode() for key in ROWS[0]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="zstd")
    assert answers(tmp_path / "a.parquet") == ANSWERS


def test_parallel_files_may_be_compressed_each_in_its_own_way(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("一\n二\n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("壹\n贰\n".encode()))
    assert answers(tmp_path, options={"parallel": {"instruction": "q.txt", "output": "a.txt.gz"}}) == ["壹", "贰"]


def test_one_object_a_file_on_one_line_or_on_several(tmp_path: Path) -> None:
    for number, row in enumerate(ROWS):
        (tmp_path / f"{number}.json").write_text(json.dumps(row, indent=number or None))
    assert sorted(answers(tmp_path)) == sorted(answers(tmp_path / "*.json")) == ANSWERS


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".arrow"])
def test_two_columns_of_one_name_are_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{suffix}"
    names, row = ["instruction", "output", "output"], ["a", "b", "c"]
    table = pa.Table.from_arrays([pa.array([each]) for each in row], names)
    if suffix == ".parquet":
        pq.write_table(table, file)
    elif suffix == ".arrow":
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    else:
        mark = "," if suffix == ".csv" else "\t"
        file.write_text(f"{mark.join(names)}\n{mark.join(row)}\n", encoding="utf-8")
    with pytest.raises(DataError, match="the columns instruction, output, output name output more than once; rename"):
        answers(file, format="alpaca")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "rows.jsonl holds no rows; change its path"),
        ("\n\n", "rows.jsonl holds no rows; change its path"),
        ('{"a": 1}\r{"a": 2}\r', "several objects belong into one array, or on one line each"),
    ],
)
def test_files_without_rows_of_their_own_are_told_plainly(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        answers(tmp_path / "rows.jsonl")


def test_objects_over_several_lines_are_told_how_to_stand(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{\n "a": 1\n}\n' * 3, encoding="utf-8")
    with pytest.raises(DataError, match="several objects belong into one array, or on one line each"):
        answers(tmp_path / "rows.json")
