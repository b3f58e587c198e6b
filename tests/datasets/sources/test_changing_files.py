"""What an address of the cache holds was made of the very bytes that its digest names, whoever wrote meanwhile."""

import gzip
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from didact.datasets import load_dataset
from didact.datasets.places.digests import Content, digest_file, unchanged
from didact.datasets.rows.raw_row import RawRow
from didact.datasets.sources.opening import OpenedSource, open_source
from didact.datasets.stored.fill import ConversionJob, Converter, convert_here
from didact.errors import DataError
from didact.spec import SourceSpec
from tests.fakes.web_server import serve


def rows(word: str, count: int = 3000) -> list[dict[str, str]]:
    return [{"instruction": f"Place {place}?", "output": f"{word} {place}"} for place in range(count)]


def write(path: Path, word: str) -> None:
    records = rows(word)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=500)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(records)
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, 500)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        content = "".join(json.dumps(record) + "\n" for record in records).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def rewritten(path: Path) -> None:
    write(path, "changed")


def renamed_over(path: Path) -> None:
    write(path.with_name(f".{path.name}"), "changed")
    path.with_name(f".{path.name}").rename(path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"instruction": "one", "output": "more"}\n')


def changed_and_restored(path: Path) -> None:
    before = path.read_bytes()
    write(path, "changed")
    path.write_bytes(before)


def removed(path: Path) -> None:
    path.unlink()


def with_its_time_kept(path: Path) -> None:
    found = path.stat()
    write(path, "changes!")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES = (rewritten, renamed_over, cut, appended, changed_and_restored, removed, with_its_time_kept)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(source: SourceSpec, convert: Converter = convert_here, opened: OpenedSource | None = None) -> list[str]:
    dataset = load_dataset(source, seed=0, max_bad_rows_share=1.0, quarantine_dir=None, convert=convert, opened=opened)
    return [row.messages[-1].content for row in dataset.train]


def changed_midway(read: Callable[[], Iterator[RawRow]], change: Callable[[], None]) -> Iterator[RawRow]:
    found = read()
    yield next(found)
    change()
    yield from found


def changing(change: Callable[[], None], part: int = 0) -> Converter:
    """Converts, and changes the source as soon as the first row of a part is read."""

    def convert(keys: Sequence[str], jobs: Sequence[ConversionJob]) -> None:
        first, *others = jobs[part].part.reads
        reads = (partial(changed_midway, first, change), *others)
        changed = replace(jobs[part], part=replace(jobs[part].part, reads=reads))
        convert_here(keys, [*jobs[:part], changed, *jobs[part + 1 :]])

    return convert


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.arrow", "a.jsonl.gz"])
def test_a_file_that_changes_while_it_is_read_fills_no_address(
    name: str, change: Callable[[Path], None], tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / name
    write(path, "before")
    original = path.read_bytes()
    source = SourceSpec(name="s", path=str(path))
    with pytest.raises(DataError, match=rf"{name} (has changed|is gone) while it was being read; .* thrown away"):
        load(source, changing(lambda: change(path)))
    assert not list(cache.rglob("manifest.json")) and not list(cache.rglob("parts/*.json"))
    path.write_bytes(original)
    assert load(source) == [row["output"] for row in rows("before")]
    write(path, "after")
    assert load(source) == [row["output"] for row in rows("after")]


def test_parts_that_were_read_before_the_change_are_kept(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "before")
    original = path.read_bytes()
    source = SourceSpec(name="s", path=str(path))
    opened = open_source(source, 50_000)
    assert len(opened.parts) == 4
    with pytest.raises(DataError, match="has changed"):
        load(source, changing(lambda: rewritten(path), part=1), opened)
    assert len(list(cache.rglob("parts/*.json"))) == 1
    path.write_bytes(original)
    made: list[str] = []

    def convert(keys: Sequence[str], jobs: Sequence[ConversionJob]) -> None:
        made.extend(job.key for job in jobs)
        convert_here(keys, jobs)

    assert load(source, convert, open_source(source, 50_000)) == [row["output"] for row in rows("before")]
    assert made == [part.key for part in opened.parts[1:]]


@pytest.mark.parametrize("change", [rewritten, removed, changed_and_restored])
def test_tables_beside_and_files_in_parallel_are_watched_as_well(
    change: Callable[[Path], None], tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text('"x","y"\n"1","2"\n')
    question = {"id": "1", "utterance": "Which?", "context": "csv/a.csv", "targetValue": "2"}
    (tmp_path / "a.jsonl").write_text(json.dumps(question) + "\n")
    (tmp_path / "q").write_text("2 + 3?\n")
    (tmp_path / "b").write_text("5\n")
    parallel = {"parallel": {"question": "q", "answer": "b"}}
    for source, watched in (
        (SourceSpec(name="s", path=str(tmp_path / "a.jsonl")), tmp_path / "csv" / "a.csv"),
        (SourceSpec(name="s", path=str(tmp_path), options=parallel), tmp_path / "b"),
    ):
        with pytest.raises(DataError, match=rf"{watched} (has changed|is gone)"):
            load(source, changing(partial(change, watched)))
    assert not list(cache.rglob("manifest.json"))


def test_a_change_between_looking_and_reading_is_seen(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "before")
    source = SourceSpec(name="s", path=str(path))
    opened = open_source(source)
    write(path, "changed")
    with pytest.raises(DataError, match="has changed"):
        load(source, opened=opened)
    assert not list(cache.rglob("manifest.json"))


@pytest.mark.parametrize("stream", [True, False])
def test_a_file_elsewhere_that_changes_while_it_is_read_fills_no_address(
    stream: bool, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "www").mkdir()
    path = tmp_path / "www" / "a.jsonl"
    write(path, "before")
    with serve(path.parent) as web:
        source = SourceSpec(name="s", path=f"{web.url}/a.jsonl", stream=stream)
        web.while_sending = lambda: write(path, "changed")
        with pytest.raises(DataError, match=r"a\.jsonl has changed while it was being read"):
            load(source)
        assert not list(cache.rglob("manifest.json")) and not list(cache.rglob("*.jsonl"))
        web.while_sending = bool
        assert load(source) == [row["output"] for row in rows("changed")]


def test_a_hub_data_set_whose_branch_moves_meanwhile_fills_no_address(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "places").mkdir(parents=True)
    path = tmp_path / "someone" / "places" / "train.jsonl"
    write(path, "before")
    source = SourceSpec(name="s", path="hf:someone/places")
    opened = open_source(source)
    write(path, "changed")
    with pytest.raises(DataError, match="hf:someone/places has changed while it was being read"):
        load(source, opened=opened)
    assert not list(cache.rglob("manifest.json"))
    assert load(source) == [row["output"] for row in rows("changed")]


def test_files_that_nobody_touches_are_not_digested_again(tmp_path: Path) -> None:
    settled = Path(pa.lib.__file__)  # a file that nobody touched of late
    known = digest_file(settled)
    assert known.state
    # A digest that is not its own passes as long as nobody looks again.
    wrong = replace(known, sha256="0")
    with unchanged([Content(settled, "lib", wrong)]):
        pass
    with (
        pytest.raises(DataError, match="lib has changed"),
        unchanged([Content(settled, "lib", replace(wrong, state=()))]),
    ):
        pass
