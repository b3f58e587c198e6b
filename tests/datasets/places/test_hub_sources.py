import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.sources.opening import open_source
from didact.errors import DataError
from didact.spec import SourceSpec


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the working directory, which the library takes for a hub data set of that name."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "someone" / "sums"
    folder.mkdir(parents=True)
    return folder


def write(file: Path, records: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def load(path: str, **fields: Any) -> Dataset:
    source = SourceSpec(name="hub", path=path, **fields)
    return load_dataset(source, seed=0, max_bad_rows_share=0.5, quarantine_dir=Path("q"))


def test_a_split_is_recognised_checked_and_fingerprinted(hub: Path) -> None:
    write(hub / "train.jsonl", [{"instruction": "a", "input": text, "output": "b"} for text in (None, "x")])
    write(hub / "test.jsonl", [{"instruction": f"c{row}", "input": "d", "output": "e"} for row in range(3)])
    train, test = load("hf:someone/sums"), load("hf:someone/sums", split="test")
    assert [message.content for message in train.train[0].messages] == ["a", "b"]
    assert [item.messages[0].content for item in test.train] == ["c0\n\nd", "c1\n\nd", "c2\n\nd"]
    assert train.fingerprint != test.fingerprint
    assert train.fingerprint == load("hf:someone/sums").fingerprint


def test_changed_records_under_the_same_name_change_the_fingerprint(hub: Path) -> None:
    write(hub / "train.jsonl", [{"instruction": "a", "output": "b"}])
    before = load("hf:someone/sums")
    write(hub / "train.jsonl", [{"instruction": "a", "output": "another"}])
    after = load("hf:someone/sums")
    assert after.train[0].messages[1].content == "another"
    assert after.fingerprint != before.fingerprint


def test_bad_rows_of_the_hub_are_quarantined_with_their_number(hub: Path) -> None:
    write(hub / "train.jsonl", [{"instruction": "a", "output": "b"}, {"instruction": "é", "output": None}])
    dataset = load("hf:someone/sums")
    assert (dataset.rows_read, dataset.rows_rejected) == (2, 1)
    assert dataset.quarantine is not None
    entry = json.loads(dataset.quarantine.read_text())
    assert (entry["file"], entry["line"], entry["byte_offset"], entry["reason"]) == (
        *("hf:someone/sums", 2, None, "wrong_type"),
    )
    assert json.loads(entry["raw"]) == {"instruction": "é", "output": None}


def test_unknown_columns_are_shown(hub: Path) -> None:
    write(hub / "train.jsonl", [{"question": "a", "reply": "b"}])
    with pytest.raises(DataError, match=r"columns question, reply.*nearest forms"):
        load("hf:someone/sums")


@pytest.mark.parametrize("path", ["hf:nobody/nothing", "hf:someone/sums:no_such_config", "hf:../secret", "hf:"])
def test_what_the_hub_does_not_have_is_an_error_naming_the_path(hub: Path, path: str) -> None:
    write(hub / "train.jsonl", [{"instruction": "a", "output": "b"}])
    with pytest.raises(DataError, match=path):
        load(path)


def test_a_missing_split_is_an_error_naming_it(hub: Path) -> None:
    write(hub / "train.jsonl", [{"instruction": "a", "output": "b"}])
    with pytest.raises(DataError, match="split 'validation'"):
        load("hf:someone/sums", split="validation")


COMMIT = "0123456789" * 4


def test_a_split_is_streamed_from_its_commit(hub: Path) -> None:
    write(hub / "train.jsonl", [{"instruction": f"a{row}", "output": "b" if row else None} for row in range(200)])
    copied, streamed = load("hf:someone/sums"), load("hf:someone/sums", stream=True, revision=COMMIT)
    assert streamed.train == copied.train
    assert (streamed.rows_read, streamed.rows_rejected) == (200, 1)
    assert streamed.fingerprint == load("hf:someone/sums", stream=True, revision=COMMIT).fingerprint
    assert streamed.fingerprint != load("hf:someone/sums", stream=True, revision=COMMIT[::-1]).fingerprint


def test_a_stream_whose_commit_cannot_be_asked_for_says_what_to_give(hub: Path) -> None:
    write(hub / "train.jsonl", [{"instruction": "a", "output": "b"}])
    with pytest.raises(DataError, match=r"hf:someone/sums: the hub cannot be asked which commit main is.*as revision"):
        load("hf:someone/sums", stream=True, revision="main")


def test_a_stream_reads_no_further_than_it_is_asked(hub: Path) -> None:
    write(hub / "train.jsonl", [{"instruction": f"a{row}", "output": "b"} for row in range(3)])
    source = SourceSpec(name="hub", path="hf:someone/sums", stream=True, revision=COMMIT)
    rows = open_source(source).rows
    assert next(rows)[1].content == {"instruction": "a0", "output": "b"}
    assert not list((hub.parents[1] / "cache").rglob("*.arrow"))
