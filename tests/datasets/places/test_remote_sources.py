import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, known_implementations

from didact.datasets import Dataset, add_card, load_dataset
from didact.datasets.load import LEAK
from didact.datasets.places import remote_stream
from didact.datasets.places.locate import locate
from didact.datasets.quality import against_texts
from didact.datasets.sources.opening import open_source
from didact.datasets.stored.choice import select
from didact.errors import DataError, SpecError
from didact.spec import ContaminationSpec, EvaluationSetSpec, SourceSpec, validate
from tests.fakes.damages import DAMAGES
from tests.fakes.web_server import WebFolder, serve

ROWS = [{"instruction": f"question {number}", "output": f"answer {number} é"} for number in range(500)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
ANSWERS = [row["output"] for row in ROWS]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no waiting between tries."""
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_stream, "WAITS", (0.0, 0.0))
    return tmp_path / "cache" / "remote"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebFolder]:
    (tmp_path / "www").mkdir()
    with serve(tmp_path / "www") as folder:
        yield folder


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """Object storage that lives in this process."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def load(path: str, quarantine: Path | None = None, **fields: Any) -> Dataset:
    source = SourceSpec(name="rows", path=path, **fields)
    return load_dataset(source, seed=0, max_bad_rows_share=0.01, quarantine_dir=quarantine)


def answers(dataset: Dataset) -> list[str]:
    return [conversation.messages[-1].content for conversation in dataset.train]


def copies(cache: Path) -> list[Path]:
    """Every file of the cache but its records and locks, half-written ones included."""
    return sorted(file for file in cache.rglob("*") if file.is_file() and file.name not in (".lock", ".landed.json"))


@pytest.mark.parametrize("etag", [True, False])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", LINES), ("a.jsonl.gz", gzip.compress(LINES))])
def test_a_file_of_the_web_is_copied_once_and_read_like_a_local_one(
    name: str, content: bytes, etag: bool, web: WebFolder, cache: Path, tmp_path: Path
) -> None:
    web.etag = etag
    (web.folder / name).write_bytes(content)
    (tmp_path / name).write_bytes(content)
    first, second = load(f"{web.url}/{name}?token=1"), load(f"{web.url}/{name}?token=1")
    assert answers(first) == ANSWERS
    assert first.fingerprint == second.fingerprint == load(str(tmp_path / name)).fingerprint
    assert [file.read_bytes() for file in copies(cache)] == [content]
    # A server that marks nothing is believed nothing, and asked for the whole again.
    assert len(web.gets) == (1 if etag else 2)


@pytest.mark.parametrize("etag", [True, False])
def test_a_file_that_changed_is_another_one_and_the_old_copy_stays_for_its_readers(
    etag: bool, web: WebFolder, cache: Path
) -> None:
    web.etag = etag
    (web.folder / "a.jsonl").write_bytes(LINES)
    before = load(f"{web.url}/a.jsonl")
    (web.folder / "a.jsonl").write_bytes(LINES.replace(b"answer 7 ", b"answer X "))
    after = load(f"{web.url}/a.jsonl")
    assert answers(after)[7] == "answer X é"
    assert before.fingerprint != after.fingerprint
    assert len(copies(cache)) == 2


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_a_response_that_always_breaks_off_is_an_error_that_names_it_and_leaves_no_half_file(
    stream: bool, lengths: bool, web: WebFolder, cache: Path
) -> None:
    (web.folder / "a.jsonl").write_bytes(LINES)
    web.stops_after, web.ranges, web.lengths = 5000, False, lengths
    with pytest.raises(DataError, match=rf"{web.url}/a\.jsonl cannot be read: .*"):
        load(f"{web.url}/a.jsonl", stream=stream)
    assert copies(cache) == []
    web.stops_after = None
    assert answers(load(f"{web.url}/a.jsonl", stream=stream)) == ANSWERS


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_response_that_breaks_off_now_and_then_is_taken_up_where_it_broke(
    ranges: bool, stream: bool, web: WebFolder
) -> None:
    # More than the library reads ahead, so that the break is met in the middle.
    (web.folder / "a.jsonl").write_bytes(LINES * 150)
    web.stops_after, web.num_breaks, web.ranges = 2_000_000, 2, ranges
    rows = open_source(SourceSpec(name="rows", path=f"{web.url}/a.jsonl", format="alpaca", stream=stream)).rows
    assert b"\n".join([*(raw.content for _, raw in rows), b""]) == LINES * 150
    asked = [each for each in web.gets if each]
    assert asked and all(re.fullmatch(r"bytes=[1-9][0-9]*-", each) for each in asked)


def test_what_is_not_there_or_does_not_answer_is_an_error_with_url_and_cause(web: WebFolder) -> None:
    with pytest.raises(DataError, match=rf"{web.url}/none\.jsonl cannot be read: .*404"):
        load(f"{web.url}/none.jsonl")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/a\.jsonl cannot be read: .*[Cc]onnect"):
        load("http://127.0.0.1:1/a.jsonl")
    with pytest.raises(DataError, match=r"no file matches memory://nothing/\*"):
        load("memory://nothing/*")
    with pytest.raises(DataError, match="nosuch"):
        load("nosuch://a/b.jsonl")


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_implementations, "faraway", {"class": "no_such_module.FileSystem"})
    with pytest.raises(DataError, match=r"pip install didact\[cloud\]"):
        load("faraway://bucket/a.jsonl")


def test_globs_and_folders_are_read_in_name_order(web: WebFolder, bucket: fsspec.AbstractFileSystem) -> None:
    parts = {"b.jsonl": ROWS[200:], "a.jsonl": ROWS[:200], "c.txt": []}
    for name, rows in parts.items():
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (web.folder / name).write_bytes(content)
        bucket.pipe(f"/bucket/{name}", content)
    for place in (f"{web.url}/*.jsonl", f"{web.url}/", "memory://bucket/?.jsonl", "memory://bucket"):
        assert answers(load(place)) == ANSWERS, place
    assert [file.name for file in locate("rows", "memory://bucket/**/*.jsonl")] == ["a.jsonl", "b.jsonl"]


def test_all_who_ask_at_once_get_the_one_copy(web: WebFolder, cache: Path) -> None:
    (web.folder / "a.jsonl").write_bytes(LINES * 50)
    ready = threading.Barrier(6)

    def ask(_: int) -> str:
        ready.wait()
        return str(locate("rows", f"{web.url}/a.jsonl")[0].path)

    with ThreadPoolExecutor(6) as pool:
        places = set(pool.map(ask, range(6)))
    assert places == {str(file) for file in copies(cache)}
    assert web.gets == [""]


def test_a_damaged_copy_is_fetched_again(web: WebFolder, cache: Path) -> None:
    (web.folder / "a.jsonl").write_bytes(LINES)
    load(f"{web.url}/a.jsonl")
    (copy,) = copies(cache)
    copy.write_bytes(LINES.replace(b"answer 7 ", b"answer X "))
    assert answers(load(f"{web.url}/a.jsonl")) == ANSWERS
    assert copy.read_bytes() == LINES


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_copy_whose_record_is_damaged_is_fetched_again(
    web: WebFolder, cache: Path, damage: Callable[[Path], object]
) -> None:
    (web.folder / "a.jsonl").write_bytes(LINES)
    load(f"{web.url}/a.jsonl")
    (record,) = cache.rglob(".landed.json")
    damage(record)
    assert answers(load(f"{web.url}/a.jsonl")) == ANSWERS
    assert json.loads(record.read_text())["files"].keys() == {"a.jsonl"}


TSV = "".join(f"question {number}\tanswer {number}\tbecause {number}\n" for number in range(20)).encode()
CSV = ("instruction,output\n" + "".join(f'{row["instruction"]},"{row["output"]}"\n' for row in ROWS)).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.json", LINES),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("a.jsonl.zst", pa.compress(LINES, codec="zstd", asbytes=True)),
        ("a.tsv", TSV),
        ("a.csv.gz", gzip.compress(CSV)),
        ("a.txt", b"Human: hi\nAssistant: hello<|endoftext|>Human: a\nAssistant: b<|endoftext|>"),
    ],
)
def test_a_streamed_source_gives_the_rows_of_its_copy_and_leaves_nothing_on_disk(
    name: str, content: bytes, web: WebFolder, bucket: fsspec.AbstractFileSystem, cache: Path
) -> None:
    (web.folder / name).write_bytes(content)
    bucket.pipe(f"/b/{name}", content)
    for place in (f"{web.url}/{name}", f"memory://b/{name}"):
        streamed = load(place, stream=True)
        assert not cache.exists()
        assert streamed.train == load(place).train
        assert streamed.fingerprint == load(place, stream=True).fingerprint
        for file in cache.glob("*/*/*"):
            file.unlink()
        cache.rename(cache.with_name(f"old-{abs(hash(place))}"))


def test_of_a_streamed_source_only_the_chosen_rows_are_stored(tmp_path: Path, web: WebFolder) -> None:
    bad, twins = b'{"instruction": "x"}\n', LINES[: len(LINES) // 3].rsplit(b"\n", 1)[0] + b"\n"
    for name, content in {"a": LINES, "b": bad + twins}.items():  # two parts; what is asked comes twice
        (web.folder / f"{name}.jsonl").write_bytes(content)
    settings = {"path": f"{web.url}/*.jsonl", "max_rows": 60, "held_out_rows": 20}
    landed = load(quarantine=tmp_path / "q", **settings)
    stored = set((tmp_path / "cache" / "conversations").iterdir())
    streamed = load(quarantine=tmp_path / "r", stream=True, **settings)
    # Parts of a streamed source are in another order than those of its copy, so the choice is another one: the same as
    # of all rows in that order.
    assert (streamed.rows_read, streamed.rows_rejected) == (landed.rows_read, landed.rows_rejected)
    assert len((tmp_path / "r" / "rows.jsonl").read_text().splitlines()) == 1
    whole = load(path=settings["path"], stream=True)
    chosen = select(whole.stored, max_rows=60, held_out_rows=20, seed=0)
    for part, places in (("train", chosen.train), ("held_out", chosen.held_out)):
        assert list(getattr(streamed, part)) == [whole.stored[place] for place in places.tolist()]
    assert streamed.dropped == {LEAK: chosen.num_leaks} and chosen.num_leaks > 0
    assert len(streamed.train) == 40 and len(streamed.held_out) == 20
    sample = streamed.stored
    assert len(sample) == 60 and sample.entry.folder not in stored
    assert load(stream=True, **settings).train == streamed.train


def test_parquet_and_arrow_are_streamed_by_their_groups(
    web: WebFolder, bucket: fsspec.AbstractFileSystem, cache: Path
) -> None:
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, web.folder / "a.parquet", row_group_size=100)
    with pa.ipc.new_file(web.folder / "a.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=100)
    with pa.ipc.new_stream(web.folder / "s.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=100)
    for name in ("a.parquet", "a.arrow", "s.arrow"):
        bucket.pipe(f"/b/{name}", (web.folder / name).read_bytes())
        assert answers(load(f"memory://b/{name}", stream=True)) == ANSWERS
        assert answers(load(f"{web.url}/{name}", stream=True)) == ANSWERS
    assert not cache.exists()


def test_only_the_rows_that_are_asked_for_are_transferred(bucket: fsspec.AbstractFileSystem) -> None:
    bucket.pipe("/b/a.jsonl", LINES)
    bucket.pipe("/b/b.jsonl", b"\n" + LINES)
    rows = open_source(SourceSpec(name="rows", path="memory://b/*.jsonl", format="alpaca", stream=True)).rows
    assert len(list(islice(rows, 10))) == 10
    bucket.rm("/b/b.jsonl")
    with pytest.raises(DataError, match=r"memory://b/b\.jsonl"):
        list(rows)


def test_a_change_under_a_stream_stops_the_run(web: WebFolder) -> None:
    (web.folder / "a.jsonl").write_bytes(LINES)
    source = SourceSpec(name="rows", path=f"{web.url}/a.jsonl", format="alpaca", stream=True)
    opened = open_source(source)
    (web.folder / "a.jsonl").write_bytes(LINES + LINES)
    with pytest.raises(DataError, match=r"has changed while it was being read"):
        list(opened.rows)
    assert open_source(source).identity != opened.identity


def test_what_cannot_be_streamed_says_so(web: WebFolder) -> None:
    (web.folder / "a.json").write_text(json.dumps(ROWS))
    with pytest.raises(DataError, match=r"array is read as a whole; set stream: false"):
        load(f"{web.url}/a.json", stream=True)
    assert answers(load(f"{web.url}/a.json")) == ANSWERS
    web.etag = False
    (web.folder / "a.jsonl").write_bytes(LINES)
    with pytest.raises(DataError, match=r"neither an ETag nor a time of change"):
        load(f"{web.url}/a.jsonl", stream=True)
    with pytest.raises(SpecError, match=r"stream: rows\.jsonl is on this machine"):
        validate(SourceSpec, {"name": "rows", "path": "rows.jsonl", "stream": True}, "a source")


def test_parallel_files_and_user_cards_may_lie_elsewhere(bucket: fsspec.AbstractFileSystem) -> None:
    bucket.pipe("/b/q.txt", b"one\ntwo\n")
    bucket.pipe("/b/a.txt", b"1\n2\n")
    parallel = {"instruction": "q.txt", "output": "a.txt"}
    assert answers(load("memory://b", options={"parallel": parallel})) == ["1", "2"]
    with pytest.raises(DataError, match="not streamed"):
        load("memory://b", options={"parallel": parallel}, stream=True)
    bucket.pipe("/c/a.jsonl", LINES)
    assert add_card("memory://c/a.jsonl", "far-rows").card.source.path == "memory://c/a.jsonl"
    assert answers(load("card:far-rows")) == ANSWERS
    assert answers(load("card:far-rows", stream=True)) == ANSWERS
    assert answers(load("card:alpaca", options={"root": "memory://c", "files": "*.jsonl"})) == ANSWERS


@pytest.mark.parametrize("stream", [True, False])
def test_bad_rows_of_a_file_elsewhere_are_quarantined_with_url_and_place(
    stream: bool, web: WebFolder, tmp_path: Path
) -> None:
    (web.folder / "a.jsonl").write_bytes(LINES + b"{}\n")
    dataset = load(f"{web.url}/a.jsonl", tmp_path / "q", stream=stream)
    assert dataset.quarantine is not None
    entry = json.loads(dataset.quarantine.read_text("utf-8"))
    expected = (f"{web.url}/a.jsonl", 501, len(LINES), "missing_field")
    assert (entry["file"], entry["line"], entry["byte_offset"], entry["reason"]) == expected


def test_records_and_messages_name_urls_not_copies(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    records = [b'{"instruction": "a", "output": "%d"}' % number for number in range(3)]
    for number, record in enumerate([*records, b'{"instruction": "a", "output": 7}']):
        bucket.pipe(f"/d/{number}.json", record)
    source = SourceSpec(name="rows", path="memory://d/*.json")
    urls = {f"memory://d/{number}.json" for number in range(4)}
    opened = open_source(source)
    assert {place for part in opened.parts for place in part.places} == set(opened.files) == urls
    assert {raw.file for _, raw in opened.rows} == urls
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0.5, quarantine_dir=tmp_path)
    assert set(dataset.files) == urls
    assert json.loads((tmp_path / "rows.jsonl").read_text())["file"] == "memory://d/3.json"
    bucket.pipe("/e/odd.json", b'{"what": 1}')
    with pytest.raises(DataError, match=r"memory://e/odd\.json is in no known form"):
        load("memory://e/odd.json")
    bucket.pipe("/f/q.txt", b"one\ntwo\n")
    bucket.pipe("/f/a.txt", b"1\n\n")
    parallel = {"parallel": {"instruction": "q.txt", "output": "a.txt"}}
    source = SourceSpec(name="pairs", path="memory://f/", options=parallel)
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0.5, quarantine_dir=tmp_path)
    assert set(dataset.files) == {"memory://f/q.txt", "memory://f/a.txt"}
    assert json.loads((tmp_path / "pairs.jsonl").read_text())["file"] == "memory://f/q.txt"
    bucket.pipe("/g/exam.json", b'{"q": "What is it?"}')
    exam = EvaluationSetSpec(name="exam", path="memory://g/exam.json", question="q")
    (text,) = against_texts(ContaminationSpec(against=(exam,)))
    assert text.item == "memory://g/exam.json:1"


class HubFiles(MemoryFileSystem):  # type: ignore[misc]
    """Files of the hub as its own library shows them, which live in this process."""

    protocol = "hf"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("hf://").strip("/")


def test_files_of_a_card_are_streamed_from_one_commit_of_the_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setitem(_registry, "hf", HubFiles)
    commit = "0123456789" * 4
    rows = "".join(json.dumps({"inputs": f"q{number}", "targets": f"a{number}"}) + "\n" for number in range(4))
    for place in ("fr/merged_fr.jsonl", "en/merged_en.jsonl", "en/other.jsonl"):
        HubFiles().pipe(f"/datasets/bigscience/xP3@{commit}/{place}", rows.replace("q", place[:2]).encode())
    streamed = load("card:xp3", stream=True, revision=commit)
    asked = [conversation.messages[0].content for conversation in streamed.train]
    assert asked == [f"{language}{number}" for language in ("en", "fr") for number in range(4)]
    assert not cache.exists()
    with pytest.raises(DataError, match="the hub cannot be asked which commit"):
        load("card:xp3", stream=True)
