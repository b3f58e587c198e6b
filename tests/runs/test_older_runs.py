"""A run, its base and its caches as they were written before the rooms were moved still open, and the run goes on.

`tests/golden/run_before_rooms` was stopped after step 5 of 6, with a checkpoint at step 4; its `steps.jsonl` and its
adapter are those of the same run without the stop.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from didact.cache import list_cache
from didact.cache.entry import CacheEntry
from didact.datasets.stored import StoredConversations
from didact.env import cache_dir
from didact.errors import DataError
from didact.files import fingerprint
from didact.models import base_fingerprint, verify_adapter
from didact.preparation import (
    DataFacts,
    Encoder,
    PartDone,
    PartJob,
    PreparedRecord,
    open_prepared,
    prepare_data,
    prepare_run,
    run_here,
)
from didact.runs import Run, open_run, start_run
from didact.tokens import TemplateContract
from didact.tracking import effective_records
from didact.training import CheckpointStore, StepReport, train, trainable_model

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "run_before_rooms"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run").rename(tmp_path / "before")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return open_run("before")


def no_work(jobs: Sequence[PartJob], encoder: Encoder) -> Iterator[PartDone]:
    raise AssertionError("the cache holds all of it")


def cached() -> dict[str, bytes]:
    files = [file for file in cache_dir().rglob("*") if file.is_file() and file.name != "used"]
    return {str(file.relative_to(cache_dir())): file.read_bytes() for file in files if file.suffix != ".lock"}


class Losses:
    def __init__(self) -> None:
        self.of_step: dict[int, float] = {}

    def on_start(self, start: int, num_steps: int) -> None:
        self.start = start

    def on_step(self, report: StepReport) -> None:
        self.of_step[report.step] = report.metrics["train/loss"]

    def close(self) -> None:
        pass


def test_its_caches_are_found_and_nothing_is_made_anew(run: Run) -> None:
    before = cached()
    prepared = open_prepared(run.prepared, run.spec())
    now = {file: content for file, content in cached().items() if not file.startswith("tokenizers/")}
    assert now == before  # which class reads a tokenizer is remembered, and made of nothing
    assert prepared.mixture.fingerprint == PreparedRecord.read(run.prepared).mixture
    assert sorted((each.kind, each.source, each.rows, each.complete) for each in list_cache(cache_dir())) == [
        ("conversations", "sums", 24, True),
        ("tokens", "sums", 20, True),
    ]


def test_rows_that_are_converted_anew_lie_beside_and_say_the_same(run: Run) -> None:
    before, spec = cached(), run.spec()
    prepared = prepare_data(spec)
    now = cached()
    assert {file: now[file] for file in before} == before and len(now) > len(before)
    (dataset,), (older,) = prepared.datasets, DataFacts.read(run.data).sources
    assert (dataset.rows_read, len(dataset.train)) == (older.rows_read, older.rows_train)
    (folder,) = (GOLDEN / "cache" / "conversations").iterdir()
    stored = StoredConversations(CacheEntry(cache_dir() / "conversations" / folder.name))
    assert list(dataset.stored) == list(stored)


def test_it_goes_on_with_the_samples_that_it_began_with(run: Run) -> None:
    before, record = run.data.read_bytes(), run.prepared.read_bytes()
    prepared, data = prepare_run(run, run.spec(), no_work)
    assert prepared.mixture.fingerprint == PreparedRecord.read(run.prepared).mixture == data.mixture_fingerprint
    assert (run.data.read_bytes(), run.prepared.read_bytes()) == (before, record)


def test_without_its_cache_other_samples_are_no_silent_change(run: Run) -> None:
    shutil.rmtree(cache_dir() / "tokens")
    with pytest.raises(DataError, match=r"not what this run was prepared from[\s\S]*rows .* became"):
        prepare_run(run, run.spec(), run_here)


def test_a_file_that_changed_is_named_before_it_goes_on(run: Run) -> None:
    (file,) = (Path(name) for source in PreparedRecord.read(run.prepared).sources for name in source.files)
    file.write_text(file.read_text() + "\n")
    with pytest.raises(DataError, match=r"had sha256 .*, now"):
        prepare_run(run, run.spec(), no_work)


def test_the_same_recipe_opens_the_run_again(run: Run) -> None:
    assert start_run(run.spec(), run.path.parent) == run
    assert [record.step for record in effective_records(run.steps)] == [1, 2, 3, 4, 5, 6]


def test_it_goes_on_from_its_checkpoint(run: Run) -> None:
    spec = run.spec()
    prepared = open_prepared(run.prepared, spec)
    identity = fingerprint([prepared.mixture.fingerprint, base_fingerprint(spec.model), spec.adapter.model_dump()])
    model, packing = trainable_model(spec, prepared.num_steps, torch.device("cpu"))
    losses = Losses()
    train(
        model,
        prepared.loader(spec, packing=packing),
        spec.training,
        num_steps=prepared.num_steps,
        compute_dtype=torch.float32,
        checkpoints=CheckpointStore(run.checkpoints, keep=2, identity=identity),
        adapter=spec.adapter,
        callbacks=[losses],
    )
    assert losses.start == 4
    expected = {record.step: record.metrics["train/loss"] for record in effective_records(run.steps)}
    assert losses.of_step == pytest.approx({step: expected[step] for step in (5, 6)}, rel=1e-4)


def test_its_adapter_is_verified_for_its_base(run: Run) -> None:
    facts = verify_adapter(run.adapter, expected_base=base_fingerprint(run.spec().model))
    assert facts.method == "lora"
    assert TemplateContract.load(run.adapter).fingerprint
