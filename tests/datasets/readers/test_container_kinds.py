import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.places.locate import LocatedFile
from didact.datasets.readers.reading import Layout
from didact.datasets.rows.options import RowOptions
from didact.datasets.sources.inspection import inspect
from didact.errors import DataError
from didact.spec import SourceSpec

ROWS = [{"instruction": f"Say {word}.", "input": "", "output": word} for word in ("café", "中文", 'a,b\t"c"\nd')]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS, ensure_ascii=False, indent=1).encode()
KEYED = json.dumps({str(place): row for place, row in enumerate(ROWS)}, ensure_ascii=False, indent=2).encode()
CSV = 'instruction,input,output\nSay café.,,café\nSay 中文.,,中文\n"Say a,b\t""c""\nd.",,"a,b\t""c""\nd"\n'.encode()


def load(path: Path | str, quarantine: Path | None = None, **fields: Any) -> Dataset:
    source = SourceSpec(name="rows", path=str(path), **fields)
    return load_dataset(source, seed=0, max_bad_rows_share=1.0, quarantine_dir=quarantine)


def layout(path: Path, **options: Any) -> Layout:
    return inspect("rows", LocatedFile(path, path.name), RowOptions.model_validate(options), format=None)


def answers(dataset: Dataset) -> list[str]:
    return [conversation.messages[1].content for conversation in dataset.train]


def rejects(dataset: Dataset) -> list[tuple[Any, ...]]:
    assert dataset.quarantine is not None
    entries = [json.loads(line) for line in dataset.quarantine.read_text("utf-8").splitlines()]
    return [(entry["line"], entry["byte_offset"], entry["reason"]) for entry in entries]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def pack(path: Path, content: bytes) -> bytes:
    """`content` compressed as the file's name says."""
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    if path.suffix in packers:
        return packers[path.suffix](content)
    return pa.compress(content, codec="zstd", asbytes=True) if path.suffix == ".zst" else content


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", LINES), ("a.json", LINES), ("a.json", ARRAY), ("a.json", KEYED), ("a.csv", CSV)],
)
def test_every_container_gives_the_same_rows_plain_and_compressed(
    name: str, content: bytes, packed: str, tmp_path: Path
) -> None:
    path = tmp_path / (name + packed)
    path.write_bytes(pack(path, content))
    assert answers(load(path)) == [row["output"] for row in ROWS]
    assert answers(load(tmp_path)) == [row["output"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", LINES), ("a.json", ARRAY), ("a.json", KEYED), ("a.csv", CSV), ("a.csv.gz", CSV)]
)
@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-le"])
def test_an_encoding_that_is_declared_is_read(encoding: str, name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(pack(path, content.decode().encode(encoding)))
    assert answers(load(path, options={"encoding": encoding})) == [row["output"] for row in ROWS]


def test_an_encoding_is_never_guessed_and_a_byte_that_is_no_text_costs_its_row_only(tmp_path: Path) -> None:
    lines = [json.dumps(row, ensure_ascii=False).encode("gb18030") for row in ROWS]
    path = write(tmp_path / "a.jsonl", b"\n".join([lines[0], lines[1][:-4] + b'\xff"}', lines[1]]))
    assert rejects(load(path, tmp_path / "q", format="alpaca", options={"encoding": "gb18030"})) == [
        (2, None, "not_utf8")
    ]
    with pytest.raises(DataError, match=r"3 \(not_utf8 3\) rejected"):
        load(path, format="alpaca")
    with pytest.raises(DataError, match="klingon"):
        load(path, options={"encoding": "klingon"})


@pytest.mark.parametrize("batch", [1, 2])
def test_parquet_and_arrow_rows_are_numbered(batch: int, tmp_path: Path) -> None:
    table = pa.Table.from_pylist([*ROWS, {"instruction": "a", "input": None, "output": None}])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=batch)
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=batch)
    with pa.ipc.new_stream(tmp_path / "b.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=batch)
    for name in ("a.parquet", "a.arrow", "b.arrow"):
        dataset = load(tmp_path / name, tmp_path / "q")
        assert answers(dataset) == [row["output"] for row in ROWS]
        assert rejects(dataset) == [(4, None, "wrong_type")]


def test_bad_text_in_parquet_costs_its_row_only(tmp_path: Path) -> None:
    words = pa.array([b"good", b"caf\xe9", b"fine"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"instruction": ["a", "b", "c"], "output": words}), tmp_path / "a.parquet")
    dataset = load(tmp_path / "a.parquet", tmp_path / "q")
    assert answers(dataset) == ["good", "fine"]
    assert rejects(dataset) == [(2, None, "not_utf8")]


@pytest.mark.parametrize(
    ("name", "content", "container"),
    [
        ("a.json", b"\xef\xbb\xbf\n\t [1]", "array"),
        ("a.json", b'{"a": [1]}\n', "lines"),
        ("a.json", b'{"a": {"b": 1}}\n{"a": {"b": 1}}\n', "lines"),
        ("a.json", b'{"a": {"b": 1}, "c": {}}', "keyed"),
        ("a.json", b'{\n "a": [["x"], [1], "y"]\n}', "keyed"),
        ("a.json", b'{\n "Definition": ["x"], "Instances": [{}]\n}', "object"),
        ("a.json", b'{\n "instruction": "a",\n "output": "b"\n}\n', "object"),
        ("a.json", b'{"instruction": \n{"instruction": "a", "output": "b"}\n', "lines"),
        ("a.json", b"", "lines"),
        ("a.txt", b"User: hi", "text"),
        ("a.txt", b'{"a": 1}\n', "lines"),
        ("a.csv", b"", "delimited"),
    ],
)
def test_a_file_is_told_by_its_name_and_beginning(name: str, content: bytes, container: str, tmp_path: Path) -> None:
    assert layout(write(tmp_path / name, content)).container == container
    assert layout(tmp_path / name, container="array").container == "array"


def test_members_that_are_broken_or_named_twice_cost_only_themselves(tmp_path: Path) -> None:
    good = '{"instruction": "a", "output": "b"}'
    text = f'{{\n"1": {good},\n"2": {{"instruction": }},\n"1": {good},\n"3": 5,\n{good},\n"4": {good}\n}}'
    dataset = load(write(tmp_path / "a.json", text.encode()), tmp_path / "q", options={"container": "keyed"})
    assert [conversation.row for conversation in dataset.train] == [0, 5]
    kinds = ["broken_json", "duplicate_key", "not_an_object", "broken_json"]
    assert [(line, reason) for line, _, reason in rejects(dataset)] == list(zip([3, 4, 5, 6], kinds, strict=True))
    for (_, offset, _), begins in zip(rejects(dataset), ('"2"', '"1"', '"3"', good), strict=True):
        assert text.encode()[offset:].startswith(begins.encode())


def test_a_folder_with_one_object_a_file_is_read_whole(tmp_path: Path) -> None:
    for place, row in enumerate(ROWS):
        (tmp_path / f"{place}.json").write_text(json.dumps(row, indent=2))
    write(tmp_path / "3.json", b'{\n "instruction": "no comma"\n "output": "b"\n}')
    dataset = load(tmp_path, tmp_path / "q", format="alpaca")
    assert sorted(answers(dataset)) == sorted(row["output"] for row in ROWS)
    assert rejects(dataset) == [(1, 0, "broken_json")]


def test_options_that_are_unknown_or_cannot_be_combined_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINES)
    for options in ({"encodng": "utf-8"}, {"table_form": "latex"}, {"max_table_rows": 0}):
        with pytest.raises(DataError, match=rf"'rows'.*options\.{next(iter(options))}"):
            load(path, options=options)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="encoding"):
        load(tmp_path / "b.parquet", options={"encoding": "gb18030"})
