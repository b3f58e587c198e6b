"""A source read in parts is the source read whole, whatever the size of the parts."""

import json
import pickle
import signal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.load import store
from didact.datasets.places.digests import digest_file, part_bytes_of
from didact.datasets.places.generated import generated_rows
from didact.datasets.rows.raw_row import RawRow
from didact.datasets.sources.conversion import convert
from didact.datasets.sources.opening import open_source
from didact.datasets.sources.parts import PART_FILES, Part, counted_parts, join_small
from didact.files import sha256_file
from didact.spec import SourceSpec
from tests.fakes.processes import begin

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
    parts = counted_parts("reasoning-gym:chain_sum", "reasoning_gym", lambda start, stop: (start, stop), 60_000)
    assert [part.reads[0]() for part in parts] == [(0, 25_000), (25_000, 50_000), (50_000, 60_000)]
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


def test_a_file_has_some_parts_but_not_countless_ones() -> None:
    mib = 1 << 20
    found = {size: part_bytes_of(size * mib) // mib for size in (0, 1, 100, 255, 257, 1000, 3000, 100_000)}
    assert found == {0: 4, 1: 4, 100: 4, 255: 4, 257: 8, 1000: 16, 3000: 32, 100_000: 32}


def test_parts_know_about_how_much_work_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes((GOOD + b"\n") * 100)
    size = (tmp_path / "a.jsonl").stat().st_size
    source = SourceSpec(name="s", path=str(tmp_path))
    assert [part.size for part in open_source(source).parts] == [size]
    pieces = open_source(source, 500).parts
    assert len(pieces) > 5 and 0.9 * size < sum(part.size for part in pieces) <= size
    (tmp_path / "b.jsonl").write_bytes(GOOD + b"\n")
    (joined,) = open_source(source).parts
    assert joined.size == size + len(GOOD) + 1


def test_a_digest_is_recalled_only_while_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n2\n3" + bytes(1 << 20))
    first = digest_file(path, 1 << 20)
    assert (first.size, first.newlines) == (5 + (1 << 20), (0, 2))
    path.write_bytes(b"1\n2\n4" + bytes(1 << 20))
    assert digest_file(path, 1 << 20).sha256 != first.sha256


def test_only_digests_of_large_files_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path))
    large, small = Path(pa.lib.__file__), Path(json.__file__)  # files that nobody touched of late
    assert small.stat().st_size < 1 << 20 < large.stat().st_size
    for path, remembered in ((small, 0), (large, 1)):
        assert digest_file(path).sha256 == digest_file(path).sha256 == sha256_file(path)
        assert len(list((tmp_path / "digests").glob("*.json"))) == remembered
    (memo,) = (tmp_path / "digests").glob("*.json")
    whole = memo.read_bytes()
    for cut in (b"", whole[: len(whole) // 2]):
        memo.write_bytes(cut)
        assert digest_file(large).sha256 == sha256_file(large)
        assert memo.read_bytes() == whole


NUM_FILES = 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of one object over several lines each, three of them refused, and between them two of another kind."""
    (tmp_path / "rows").mkdir()
    for number in range(NUM_FILES):
        record = {"instruction": f"a {number}", "output": "b" if number % 100 else 7}
        (tmp_path / "rows" / f"{number}.json").write_text(json.dumps(record, indent=1))
    exam = {"question": "Where?", "A": "here", "B": "there", "answer": "A"}
    for number in range(2):
        (tmp_path / "rows" / f"exam-{number}.json").write_text(json.dumps({**exam, "C": str(number)}, indent=1))
    return tmp_path / "rows"


def test_small_files_are_parts_together(folder: Path) -> None:
    source = SourceSpec(name="s", path=str(folder))
    one_each, few = open_source(source, 1).parts, open_source(source).parts
    assert len(one_each) == NUM_FILES + 2
    # A part is of one form: the two others cut the order of digests into at most five stretches.
    assert 2 <= len(few) <= 5
    assert {len({part.form for part in parts}) for parts in (one_each, few)} == {2}
    assert [row for part in few for row in part.rows()] == [row for part in one_each for row in part.rows()]
    assert [place for part in few for place in part.places] == [place for part in one_each for place in part.places]
    assert len({part.key for part in few}) == len(few) and sorted(part.key for part in few) == [p.key for p in few]
    assert not {part.key for part in few if len(part.places) > 1} & {part.key for part in one_each}
    some = open_source(source, 1000).parts
    sizes = [sum(Path(place).stat().st_size for place in part.places) for part in some]
    assert max(sizes) <= 1000 and len(some) < NUM_FILES / 10
    assert [row for part in some for row in part.rows()] == [row for part in one_each for row in part.rows()]


def test_a_part_has_a_limited_number_of_files() -> None:
    parts = [[Part(f"{n:05d}", (str(n),), "alpaca", (partial(iter, ()),))] for n in range(2 * PART_FILES + 1)]
    joined = join_small(parts, [1] * len(parts), 1 << 20)
    assert [len(part.places) for part in joined] == [PART_FILES, PART_FILES, 1]
    streamed = join_small(parts[:3], [1, None, 1], 1 << 20)
    assert [part.places for part in streamed] == [("0",), ("1",), ("2",)]
    divided = join_small([parts[0], [*parts[1], *parts[2]], parts[3], parts[4]], [1, 2, 1, 1], 1 << 20)
    assert [part.places for part in divided] == [("0",), ("1",), ("2",), ("3", "4")]


def load(folder: Path, quarantine: Path | None = None) -> Dataset:
    source = SourceSpec(name="s", path=str(folder))
    return load_dataset(source, seed=0, max_bad_rows_share=0.1, quarantine_dir=quarantine)


def test_rows_and_rejects_of_files_that_are_parts_together(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    dataset = load(folder, tmp_path / "bad")
    converted = [
        each.messages for part in open_source(SourceSpec(name="s", path=str(folder)), 1).parts
        for batch in convert(part, RowSettings()) for each in batch.accepted
    ]  # fmt: skip
    assert [row.messages for row in dataset.train] == converted and len(converted) == NUM_FILES - 1
    assert len(list((tmp_path / "cache" / "conversations").rglob("*.arrow"))) <= 10
    expected = {str(folder / f"{number}.json") for number in (0, 100, 200)}
    assert {json.loads(line)["file"] for line in (tmp_path / "bad" / "s.jsonl").read_text().splitlines()} == expected
    # The same bytes under other names: nothing is converted anew, and the names are those of now.
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / f"new-{file.name}").write_bytes(file.read_bytes())
    assert load(moved, tmp_path / "bad").fingerprint == dataset.fingerprint
    lines = (tmp_path / "bad" / "s.jsonl").read_text().splitlines()
    assert {json.loads(line)["file"] for line in lines} == {
        str(moved / f"new-{number}.json") for number in (0, 100, 200)
    }


def load_in_folder(folder: Path) -> None:
    load(folder)


def test_a_killed_preparation_of_small_files_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "conversations").mkdir(parents=True)
    (tmp_path / "cache" / "conversations" / "failpoint").write_text("shards:kill@1")
    worker = begin(load_in_folder, folder)
    worker.join(timeout=120)
    assert worker.exitcode == -signal.SIGKILL
    killed = load(folder)
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "other"))
    assert killed.train == load(folder).train


def test_what_the_cache_holds_of_single_files_is_not_taken_for_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    for file in sorted(folder.glob("[0-9]*.json"))[20:]:
        file.unlink()
    source = SourceSpec(name="s", path=str(folder))
    before = store(open_source(source, 1), source, 0)
    rows_before = list(before)
    after = store(open_source(source), source, 0)
    assert after.entry == before.entry and len(after.records) < len(before.records)
    assert list(after) == rows_before
