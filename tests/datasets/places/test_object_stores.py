"""`s3://` and `gs://` as their servers speak: real requests to servers on this machine, named as by a user's shell."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.places import remote_stream
from didact.datasets.sources.opening import open_source
from didact.errors import DataError
from didact.spec import SourceSpec
from tests.fakes.object_stores import GcsStore, ObjectStore, S3Store, serve_gcs, serve_s3
from tests.fakes.web_server import serve

ROWS = [{"instruction": f"question {number}", "output": f"answer {number} é"} for number in range(200)]
LINES = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS]
ANSWERS = [row["output"] for row in ROWS]
NO_SECOND_TRY = (-1.0,)
"""Nobody can sleep for so long."""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Store]:
    with serve_s3() as server:
        yield server


@pytest.fixture(scope="module")
def gcs() -> Iterator[GcsStore]:
    with serve_gcs() as server:
        yield server


@pytest.fixture(autouse=True)
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache, no credentials of this machine, and libraries that ask the environment again."""
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(remote_stream, "WAITS", (0.0,))
    yield
    for protocol in ("s3", "gs"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    found: ObjectStore = request.getfixturevalue(request.param)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    return found


def load(path: str, **fields: Any) -> Dataset:
    source = SourceSpec(name="rows", path=path, **fields)
    return load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)


def answers(dataset: Dataset) -> list[str]:
    return [conversation.messages[-1].content for conversation in dataset.train]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_an_object_is_read_like_a_local_file(name: str, stream: bool, store: ObjectStore, tmp_path: Path) -> None:
    content = b"".join(LINES)
    content = gzip.compress(content) if name.endswith(".gz") else content
    store.put(f"one/{name}", content)
    (tmp_path / name).write_bytes(content)
    found, local = load(f"{store.url}/one/{name}", stream=stream), load(str(tmp_path / name))
    assert answers(found) == ANSWERS
    assert (found.fingerprint == local.fingerprint) == (not stream)


def test_an_object_of_several_pieces_is_whole(store: ObjectStore, tmp_path: Path) -> None:
    long = [
        json.dumps({**row, "instruction": f"{row['instruction']} " + "x" * 40_000}).encode() + b"\n" for row in ROWS
    ]
    content = b"".join(long)
    cut = store.piece_bytes + 1000
    store.put_in_pieces("big.jsonl", [content[:cut], content[cut:]])
    assert answers(load(f"{store.url}/big.jsonl")) == ANSWERS
    (copy,) = (tmp_path / "cache" / "remote").glob("*/*/big.jsonl")
    assert copy.read_bytes() == content
    assert answers(load(f"{store.url}/big.jsonl", stream=True)) == ANSWERS


def test_globs_and_folders_take_several_objects_in_order(store: ObjectStore) -> None:
    store.put("many/b.jsonl", b"".join(LINES[120:]))
    store.put("many/a.jsonl", b"".join(LINES[:120]))
    store.put("many/notes.txt", b"none of it")
    store.put("many/deeper/c.jsonl", b"".join(LINES[:5]))
    for path in ("many/*.jsonl", "many/?.jsonl", "many/", "many"):
        source = SourceSpec(name="rows", path=f"{store.url}/{path}")
        opened = open_source(source)
        assert set(opened.files) == {f"{store.url}/many/a.jsonl", f"{store.url}/many/b.jsonl"}, path
        assert sorted(answers(load(source.path))) == sorted(ANSWERS)
    assert len(answers(load(f"{store.url}/many/**/*.jsonl", stream=True))) == 205


@pytest.mark.parametrize("stream", [False, True])
def test_an_object_that_changed_has_another_address(stream: bool, store: ObjectStore) -> None:
    path = f"{store.url}/changing-{stream}.jsonl"
    name = path.rpartition("/")[2]
    store.put(name, b"".join(LINES))
    before, same = load(path, stream=stream), load(path, stream=stream)
    # Of the same length, so that nothing but the server's mark tells them apart.
    store.put(name, b"".join(LINES).replace(b"answer 7 ", b"answer X "))
    after = load(path, stream=stream)
    assert before.fingerprint == same.fingerprint != after.fingerprint
    assert (answers(before)[7], answers(after)[7]) == ("answer 7 é", "answer X é")


@pytest.mark.parametrize("path", ["none.jsonl", "none/*.jsonl", "none/"])
def test_what_is_not_there_is_named(path: str, store: ObjectStore) -> None:
    for url in (f"{store.url}/{path}", f"{store.url}-of-nobody/{path}"):
        with pytest.raises(DataError) as refused:
            load(url)
        assert url.rstrip("/") in str(refused.value)


@pytest.mark.parametrize("path", ["kept.jsonl", "*.jsonl"])
def test_refused_keys_of_s3_are_an_error_that_says_what_to_set(
    path: str, s3: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_stream, "WAITS", NO_SECOND_TRY)
    s3.put("kept.jsonl", b"".join(LINES))
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with s3.strict(), pytest.raises(DataError, match=rf"{s3.url}/.* cannot be read: .*AWS_ACCESS_KEY_ID") as refused:
        load(f"{s3.url}/{path}")
    assert "secret" not in str(refused.value).replace("SECRET", "")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(DataError, match=rf"{s3.url}/.* cannot be read: .*redentials.*AWS_ACCESS_KEY_ID"):
        load(f"{s3.url}/{path}")


def test_refused_credentials_of_google_are_an_error_that_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_stream, "WAITS", NO_SECOND_TRY)
    with serve(tmp_path) as web:
        web.refuses = True
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", web.url)
        with pytest.raises(
            DataError, match=r"(?s)gs://rows/a\.jsonl cannot be read: .*Forbidden.*GOOGLE_APPLICATION_CREDENTIALS"
        ):
            load("gs://rows/a.jsonl")
