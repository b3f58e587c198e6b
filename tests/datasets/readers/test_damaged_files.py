"""A file that is cut, or whose bytes changed, is refused; or exactly the rows that are bad are counted."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from didact.datasets import Dataset, add_card, load_dataset
from didact.datasets.catalog import load_cards
from didact.errors import DataError
from didact.spec import SourceSpec
from tests.fakes.web_server import serve

ROWS = [{"instruction": f'Say "{place}", {{please}}].', "output": f"{place**7} é"} for place in range(400)]
TABLE = pa.Table.from_pylist(ROWS)


def lines() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def table(write: Callable[[io.BytesIO], Any], rows: pa.Table = TABLE) -> bytes:
    stream = io.BytesIO()
    with write(stream) as file:
        file.write_table(rows, 100)
    return stream.getvalue()


def parquet(**options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(TABLE, stream, row_group_size=100, **options)
    return stream.getvalue()


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


CSV = ("instruction,output\n" + "".join(",".join(map(quoted, row.values())) + "\n" for row in ROWS)).encode()
FILES: dict[str, bytes] = {
    "a.json": json.dumps(ROWS, ensure_ascii=False).encode(),
    "indented.json": json.dumps(ROWS, ensure_ascii=False, indent=2).encode(),
    "keyed.json": json.dumps({f"row {place}": row for place, row in enumerate(ROWS)}).encode(),
    "object.json": json.dumps(ROWS[0], indent=2).encode(),
    "a.jsonl.gz": gzip.compress(lines()),
    "a.jsonl.bz2": bz2.compress(lines()),
    "a.jsonl.xz": lzma.compress(lines()),
    "a.jsonl.zst": bytes(pa.compress(lines(), codec="zstd", asbytes=True)),
    "a.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "a.csv.gz": gzip.compress(CSV),
    "members.jsonl.gz": gzip.compress(lines()[:9000]) + gzip.compress(lines()[9000:]),
    "file.arrow": table(lambda stream: pa.ipc.new_file(stream, TABLE.schema)),
    "stream.arrow": table(lambda stream: pa.ipc.new_stream(stream, TABLE.schema)),
    "a.feather": table(
        lambda stream: pa.ipc.new_file(stream, TABLE.schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    ),
    "a.parquet": parquet(),
    "plain.parquet": parquet(compression="none", use_dictionary=False),
}


def load(path: Path, quarantine: Path | None = None, **fields: Any) -> Dataset:
    source = SourceSpec.model_validate({"name": "rows", "path": str(path), "format": "alpaca", **fields})
    return load_dataset(source, seed=0, max_bad_rows_share=1.0, quarantine_dir=quarantine)


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def texts(dataset: Dataset) -> list[str]:
    return [row.messages[-1].content for row in dataset.train]


def cuts(name: str) -> Iterator[int]:
    size = len(FILES[name])
    yield from (1, size // 10, size // 3, size * 6 // 10, size - 9, size - 1)


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    expected = [row["output"] for row in ROWS]
    assert texts(load(written(tmp_path, name, FILES[name]))) == (expected[:1] if name == "object.json" else expected)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_is_refused_wherever_it_is_cut(name: str, tmp_path: Path) -> None:
    for place in cuts(name):
        path = written(tmp_path, name, FILES[name][:place])
        with pytest.raises(DataError) as refused:
            load(path)
        assert f"{path} is damaged or incomplete" in str(refused.value), (name, place)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".gz", ".bz2", ".xz"))])
def test_a_byte_that_changed_in_a_compressed_file_is_seen(name: str, tmp_path: Path) -> None:
    for place in (len(FILES[name]) * tenth // 10 for tenth in range(1, 10)):
        content = bytearray(FILES[name])
        content[place] ^= 0x55
        with pytest.raises(DataError, match="is damaged or incomplete"):
            load(written(tmp_path, name, bytes(content)))


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".arrow", ".feather", ".parquet"))])
def test_changed_bytes_of_a_table_cost_the_file_or_change_no_count(name: str, tmp_path: Path) -> None:
    # These formats keep no checksum of all that they hold: a letter may be another one. What tells where rows begin is
    # checked, so that none is read from bytes of others.
    for place in range(4, len(FILES[name]), len(FILES[name]) // 20):
        content = bytearray(FILES[name])
        content[place : place + 8] = b"\xff" * 8
        try:
            dataset = load(written(tmp_path, name, bytes(content)))
        except DataError:
            continue
        assert dataset.rows_read == len(ROWS), place


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.xz", "a.jsonl.zst", "stream.arrow", "a.json"])
def test_what_follows_the_end_is_not_passed_over(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, FILES[name] + b"and more")
    with pytest.raises(DataError, match="is damaged or incomplete"):
        load(path)
    twice = written(tmp_path, name, FILES[name] * 2)
    if name in ("stream.arrow", "a.json"):
        with pytest.raises(DataError, match="something follows"):
            load(twice)
    else:
        assert len(load(twice).train) == 2 * len(ROWS)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_file_of_no_bytes_is_refused(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is damaged or incomplete"):
        load(written(tmp_path, f"a.jsonl{suffix}", b""))


GOOD = '{"instruction": "a", "output": "b"}'
ODD = '{"instruction": "a "q", "output": "b"}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"[{GOOD},\n{GOOD[:-1]},\n{GOOD}\n]", "line 3, .*a } is missing before this"),
        (f"[{GOOD},\n{GOOD[:-1]},\n{GOOD}}},\n{GOOD}\n]", "line 3, .*a } is missing before this"),
        (f"[{GOOD},\n{GOOD}\n{GOOD}\n]", "line 3, .*a comma is missing before this"),
        (f"[{GOOD},\n{GOOD}}},\n{GOOD}\n]", "line 2, .*closes no bracket of its kind"),
        (f"[{GOOD},\n{GOOD}]\n[{GOOD}]", "line 3, .*something follows"),
        (f"[{GOOD},\n{GOOD}", "it ends before the ]"),
        (f'[{GOOD},\n{{"instruction": "a, "output": "b"}},\n{GOOD}]', "line 3, .*never ends"),
        # Two quotes without partner: what lies between is one text to whoever counts quotes.
        (
            f"[{GOOD},\n{ODD},\n{GOOD},\n{GOOD},\n{ODD}]",
            "line 2, .*a quote has no partner",
        ),
        (f'[{GOOD},\n{{"instruction": "a", "output": "b\\"}},\n{GOOD},\n{ODD}]', "line 2, .*a quote has no partner"),
        (f"[{GOOD},\n{{{GOOD},\n{GOOD}}},\n{GOOD}]", "line 2, .*a } is missing before this, or a name"),
        (f'{{"1": {GOOD},\n"2": {GOOD[:-1]},\n"3": {GOOD}\n}}', "never closed"),
        (f'{{"1": {GOOD},\n"2": {GOOD}\n"3": {GOOD}\n}}', "line 3, .*a comma is missing"),
        (f'{{"1": {GOOD},\n"2": {GOOD}}}\nmore', "it ends before the }"),
    ],
)
def test_an_array_or_object_whose_brackets_lost_their_partner_is_refused_with_the_line(
    text: str, says: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "a.json", text.encode())
    with pytest.raises(DataError, match=rf"a\.json is damaged or incomplete: .*{says}"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", f"{GOOD}\n{GOOD[:-5]}", "it ends in the middle of line 2"),
        ("a.jsonl", f"{GOOD}\n{GOOD[:-1]}", "it ends in the middle of line 2"),
        ("a.jsonl", f"{GOOD}\n{GOOD}\n\0\0\0\0", "it ends in the middle of line 3"),
        ("a.csv", "instruction,output\na,b\nc", "it ends in the middle of line 3, after 1 of 2 columns"),
        ("a.csv", 'instruction,output\na,b\n"c,d\ne', "it ends inside the quotes of the row that begins with .*c,d"),
        ("a.tsv", "a question\tb\tc\nanother\td", "it ends in the middle of line 2"),
    ],
)
def test_a_last_row_that_is_cut_means_that_others_may_be_missing(
    name: str, content: str, says: str, tmp_path: Path
) -> None:
    fields = {"format": "cot_tsv"} if name == "a.tsv" else {}
    for suffix, pack in (("", bytes), (".gz", gzip.compress)):
        with pytest.raises(DataError, match=rf"{name}{suffix} is damaged or incomplete: {says}"):
            load(written(tmp_path, name + suffix, pack(content.encode())), **fields)
        # A last row that is bad, but whole, costs itself.
        dataset = load(written(tmp_path, name + suffix, pack(content.encode() + b"\n")), tmp_path / "q", **fields)
        assert dataset.rows_rejected >= 1 and len(dataset.train) >= 1


def test_a_last_line_without_an_end_is_a_row_like_any_other(tmp_path: Path) -> None:
    assert len(load(written(tmp_path, "a.jsonl", f"{GOOD}\n{GOOD}".encode())).train) == 2
    assert load(written(tmp_path, "b.jsonl", f"{GOOD}\nnot json".encode())).rows_rejected == 1
    assert len(load(written(tmp_path, "c.csv", b"instruction,output\na,b\nc,d")).train) == 2


def test_files_in_parallel_that_end_at_different_lines_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "q", b"one\ntwo\nthree\n")
    written(tmp_path, "a", b"1\n2")
    parallel = {"instruction": "q", "output": "a"}
    with pytest.raises(DataError, match=r"/a ends after 2 lines and .*/q goes on"):
        load(tmp_path, options={"parallel": parallel})
    written(tmp_path, "a.gz", gzip.compress(b"1\n2\n3\n")[:-4])
    with pytest.raises(DataError, match=r"/a\.gz is damaged or incomplete"):
        load(tmp_path, options={"parallel": {**parallel, "output": "a.gz"}})


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.zst", "a.json", "a.arrow"])
def test_a_file_that_is_damaged_behind_the_rows_that_are_checked_makes_no_card(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path / "runs"))
    rows = [{"instruction": f"Say {place}.", "output": f"{place**9}"} for place in range(4000)]
    csv = "instruction,output\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    content = {
        "a.jsonl.gz": lambda: gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()),
        "a.csv.zst": lambda: bytes(pa.compress(csv.encode(), codec="zstd", asbytes=True)),
        "a.json": lambda: json.dumps(rows).replace('"Say 3500."', '"Say 3500.').encode(),
        "a.arrow": lambda: table(lambda stream: pa.ipc.new_stream(stream, TABLE.schema), pa.Table.from_pylist(rows)),
    }[name]()
    path = written(tmp_path, name, content if name == "a.json" else content[: len(content) * 6 // 10])
    with pytest.raises(DataError, match=rf"{name} is damaged or incomplete"):
        add_card(str(path), "mine")
    assert "mine" not in {card.name for card in load_cards()}


def test_one_damaged_file_of_a_folder_is_named(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", lines())
    written(tmp_path, "b.jsonl.gz", gzip.compress(lines())[:300])
    with pytest.raises(DataError, match=r"b\.jsonl\.gz is damaged or incomplete: it breaks off after [0-9,]+ bytes"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv.gz", "stream.arrow", "a.parquet"])
def test_a_damaged_file_elsewhere_is_refused_by_its_url_copied_or_streamed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    content = FILES.get(name, lines())
    (tmp_path / "www").mkdir()
    with serve(tmp_path / "www") as web:
        for cut in (content[:-9], content[: len(content) // 2 + 3]):
            written(tmp_path / "www", name, cut)
            for stream in (True, False):
                source = SourceSpec(name="rows", path=f"{web.url}/{name}", stream=stream, format="alpaca")
                with pytest.raises(DataError, match=rf"^{web.url}/{name} is damaged or incomplete"):
                    load_dataset(source, seed=0, max_bad_rows_share=1.0, quarantine_dir=None)
    assert not list((tmp_path / "cache").rglob("manifest.json"))
