"""Conversations are converted once, whoever asks; what is damaged or unfinished is never served."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from didact.cache.entry import CacheEntry
from didact.datasets import Dataset, load_dataset
from didact.datasets.load import conversations_entry, store
from didact.datasets.quality import drop_leaks, filtered
from didact.datasets.sources.opening import OpenedSource, open_source
from didact.datasets.stored.reader import StoredConversations
from didact.datasets.stored.view import ConversationView
from didact.datasets.stored.writer import prompt_key
from didact.errors import DataError
from didact.spec import SourceSpec
from tests.fakes.damages import DAMAGES
from tests.fakes.processes import begin, forking


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, rows: int = 60, start: int = 0) -> Path:
    records = [{"instruction": f"question {row}", "output": f"answer {row}"} for row in range(start, start + rows)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + "[]\n")
    return path


def spec(path: Path, **fields: Any) -> SourceSpec:
    return SourceSpec(**{"name": "rows", "path": str(path), **fields})


def load(path: Path, part_bytes: int = 500, **fields: Any) -> Dataset:
    source = spec(path, **fields)
    opened = open_source(source, part_bytes)
    return load_dataset(source, seed=0, max_bad_rows_share=0.5, quarantine_dir=path.parent / "q", opened=opened)


def entry_of(path: Path) -> CacheEntry:
    return conversations_entry(open_source(spec(path), 500), spec(path), 0)


def state(entry: CacheEntry) -> dict[str, tuple[int, int]]:
    names = {shard.name for record in entry.manifest() or () for shard in record.shards}
    return {name: ((entry.folder / name).stat().st_ino, (entry.folder / name).stat().st_mtime_ns) for name in names}


def test_the_address_depends_on_the_rows_and_not_on_the_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    base = conversations_entry(open_source(spec(path)), spec(path), 0)
    for same in (spec(path, max_rows=9), spec(path, held_out_rows=4), spec(path, name="other", weight=3)):
        assert conversations_entry(open_source(same), same, 1) == base
    other = spec(path, options={"language": "zh"})
    assert conversations_entry(open_source(other), other, 0) != base
    (tmp_path / "b.tsv").write_text("question\tyes\twhy\n")
    seeded = spec(tmp_path / "b.tsv")
    assert conversations_entry(open_source(seeded), seeded, 0) != conversations_entry(open_source(seeded), seeded, 1)


def test_the_size_of_parts_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl")
    many = load(path, 200, max_rows=30, held_out_rows=5)
    assert len(entry_of(path).manifest() or ()) > 10
    quarantine = (tmp_path / "q" / "rows.jsonl").read_text()
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "other"))
    one = load(path, 1 << 20, max_rows=30, held_out_rows=5)
    assert len(entry_of(path).manifest() or ()) == 1
    assert (one.train, one.held_out, one.fingerprint) == (many.train, many.held_out, many.fingerprint)
    assert (tmp_path / "q" / "rows.jsonl").read_text() == quarantine
    assert json.loads(quarantine)["line"] == 61


def test_parts_of_another_size_are_not_taken_for_those_of_today(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    for part_bytes in (200, 500, 1 << 20):
        assert [row.row for row in load(path, part_bytes).train] == list(range(60)), part_bytes


def test_a_second_load_converts_nothing_and_a_copy_is_told_by_its_own_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    first, before = load(path), state(entry_of(path))
    (tmp_path / "copy").mkdir()
    second = load(write(tmp_path / "copy" / "b.jsonl"))
    assert second.train == first.train and state(entry_of(path)) == before
    assert second.quarantine is not None
    assert json.loads(second.quarantine.read_text())["file"] == str(tmp_path / "copy" / "b.jsonl")


def test_stored_rows_read_as_they_were_written_also_in_another_process(tmp_path: Path) -> None:
    records = [
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": f"好 {row}"},
                {"role": "assistant", "content": "🎉"},
            ]
        }
        for row in range(700)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records))
    stored = store(open_source(spec(path), 20_000), spec(path), 0)
    assert [each.row for each in stored] == list(range(700))
    assert [each.messages[1].content for each in stored] == [f"好 {row}" for row in range(700)]
    assert stored[-1] == stored[699] and list(stored[5:9:2]) == [stored[5], stored[7]]
    for place in (-701, 700):
        with pytest.raises(IndexError):
            stored[place]
    again: StoredConversations = stored.__reduce__()[0](*stored.__reduce__()[1])
    assert again[321] == stored[321]
    prompts = np.concatenate([keys.prompts for keys in stored.key_blocks()])
    assert prompts[40] == np.frombuffer(prompt_key(stored[40].prompt), dtype="S16")[0]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["texts", "keys"])
def test_only_a_damaged_part_is_made_again(damage: str, kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    expected, entry = list(load(path).train), entry_of(path)
    before = state(entry)
    name = sorted(name for name in before if kind in name)[2]
    DAMAGES[damage](entry.folder / name)
    if kind == "texts":
        with pytest.raises(DataError, match="prepare the data again"):
            list(StoredConversations(entry))
    assert list(load(path).train) == expected
    after = state(entry)
    part = name.split("-0000.")[0]
    assert {each for each in after if after[each] != before[each]} == {each for each in after if each.startswith(part)}


def load_in_folder(path: Path) -> None:
    load(path)


def test_a_killed_preparation_keeps_what_is_finished(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    (cache / "conversations").mkdir(parents=True)
    (cache / "conversations" / "failpoint").write_text("shards:kill@2\nmanifest:kill@0\n")
    for fault in ("shards", "manifest"):
        worker = begin(load_in_folder, path)
        worker.join(timeout=120)
        assert worker.exitcode == -signal.SIGKILL
        entry = entry_of(path)
        assert entry.manifest() is None
        finished = {file.stem: file.stat().st_mtime_ns for file in (entry.folder / "parts").glob("*.json")}
        assert len(finished) == (2 if fault == "shards" else len(open_source(spec(path), 500).parts))
        with pytest.raises(DataError, match="no complete"):
            StoredConversations(entry)
        kept = {name: (entry.folder / name).stat().st_ino for name in shards_of(entry, finished)}
    assert len(load(path).train) == 60
    assert {name: (entry.folder / name).stat().st_ino for name in kept} == kept
    assert {file.suffix for file in entry.folder.iterdir() if file.is_file()} == {".arrow", ".json", ".jsonl", ""}
    assert not (entry.folder / "parts").exists()


def shards_of(entry: CacheEntry, keys: dict[str, int]) -> list[str]:
    return [shard.name for key in keys if (record := entry.record(key)) for shard in record.shards]


def test_leaks_are_dropped_across_sources_and_counted_by_source(tmp_path: Path) -> None:
    one = load(write(tmp_path / "a.jsonl"), held_out_rows=10)
    two = load(write(tmp_path / "b.jsonl", rows=100, start=30), name="two")
    asked = {row.prompt for row in one.held_out}
    leaking = [row for row in two.train if row.prompt in asked]
    assert leaking
    first, second = filtered([one, two], [drop_leaks])
    assert first is one and (second.dropped, len(second.train)) == (
        {"held_out_prompt": len(leaking)},
        100 - len(leaking),
    )
    assert not asked & {row.prompt for row in second.train}
    assert second.fingerprint != two.fingerprint
    assert filtered([one, two], [drop_leaks])[1].fingerprint == second.fingerprint
    with pytest.raises(DataError, match="no row is left"):
        filtered([replace(one, held_out=two.train), two], [drop_leaks])


def test_rows_can_be_left_out_of_any_view(tmp_path: Path) -> None:
    dataset = load(write(tmp_path / "a.jsonl"))
    keep = np.arange(60) % 3 > 0
    fewer = dataset.without(keep, {"duplicate": 20})
    assert [row.row for row in fewer.train] == np.flatnonzero(keep).tolist()
    assert isinstance(fewer.train, ConversationView)
    again = fewer.without(np.arange(40) > 0, {"duplicate": 0, "contaminated": 1})
    assert again.dropped == {"contaminated": 1, "duplicate": 20} and len(again.train) == 39
    assert len({dataset.fingerprint, fewer.fingerprint, again.fingerprint}) == 3
    for wrong in (np.ones(59, dtype=bool), keep):
        with pytest.raises(ValueError, match="marks for 60 rows"):
            dataset.without(wrong, {})


def prepare_at_once(path: Path, barrier: Any, results: Any) -> None:
    opened: OpenedSource = open_source(spec(path), 500)
    barrier.wait(timeout=120)
    stored = store(opened, spec(path), 0)
    results.put((sorted(state(stored.entry).items()), len(stored)))


def test_processes_that_ask_at_once_convert_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    context = forking()
    barrier, results = context.Barrier(2), context.Queue()
    workers = [begin(prepare_at_once, path, barrier, results) for _ in range(2)]
    first, second = (results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
    # Had both written, the second would have replaced the files that the first saw.
    assert first == second and first[1] == 60
