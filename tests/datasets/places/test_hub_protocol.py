"""`hf:` as the hub's server speaks, at the address that `HF_ENDPOINT` names.

The hub's library reads its environment when it is imported, so these read in a process of their own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.fakes.hub_server import Hub, serve_hub

OLD, NEW = "a" * 40, "b" * 40
PROGRAM = """
import json, sys
from didact.datasets import load_dataset
from didact.errors import DataError
from didact.spec import SourceSpec

for fields in json.loads(sys.argv[1]):
    try:
        source = SourceSpec(name="sums", path="hf:someone/sums", **fields)
        found = load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)
        print(json.dumps([found.fingerprint, [row.messages[-1].content for row in found.train]]))
    except DataError as error:
        print(json.dumps([None, str(error)]))
"""


def lines(word: str, rows: int) -> bytes:
    records = [{"instruction": f"question {row}", "output": f"{word} {row} é"} for row in range(rows)]
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {word: {"train.jsonl": lines(word, 50), "test.jsonl": lines("test", 5)} for word in ("old", "new")}
    with serve_hub(Hub("someone/sums", {OLD: files["old"], NEW: files["new"]}, {"main": NEW, "v1": OLD})) as hub:
        yield hub


def loaded(hub: Hub, folder: Path, *sources: dict[str, Any]) -> list[tuple[str | None, Any]]:
    """Fingerprint and answers of each, or None and the error."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    told = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "DIDACT_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(sources)],
        **{"env": {**passed, **told, "PYTHONPATH": str(ROOT / "platform"), "HF_HUB_DISABLE_TELEMETRY": "1"}},
        **{"capture_output": True, "text": True, "timeout": 250},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_revisions_splits_and_streams_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    sources = [{}, {"revision": "v1"}, {"revision": OLD}, {"split": "test"}, {"revision": "v1", "stream": True}]
    found = loaded(hub, tmp_path, *sources, {"revision": OLD, "stream": True}, {"stream": True})
    answers = {word: [f"{word} {row} é" for row in range(50)] for word in ("old", "new")}
    expected = [answers["new"], *[answers["old"]] * 2, [f"test {row} é" for row in range(5)]]
    assert [each for _, each in found] == [*expected, *[answers["old"]] * 2, answers["new"]]
    assert None not in (marks := [mark for mark, _ in found]) and len(set(marks)) == len(marks)
    assert f"GET /datasets/someone/sums/resolve/{OLD}/train.jsonl" in hub.asked


def test_a_moved_branch_is_another_data_set_and_what_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    sources = [{"stream": True}, {"revision": "v9"}, {"revision": "v9", "stream": True}]
    (before, _), *missing = loaded(hub, tmp_path, *sources)
    hub.refs["main"] = OLD
    ((after, rows),) = loaded(hub, tmp_path, {"stream": True})
    assert before != after and rows[0] == "old 0 é"
    for mark, told in missing:
        assert mark is None and "hf:someone/sums" in told and "v9" in told, told
