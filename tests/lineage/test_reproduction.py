"""What is missing or different is said before a run is done again; what came out is compared to the bit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from didact.cli import app
from didact.display import as_text
from didact.errors import RunError
from didact.files import append_jsonl, read_jsonl
from didact.lineage import Records
from didact.lineage.comparison import Comparison, StepPair, compare
from didact.lineage.reproduction import Difference, Reproduction, begin_again, plan_reproduction
from didact.runs import Run
from tests.fakes.finished import train_here
from tests.fakes.lineage import same_weights
from tests.fakes.traced import History

OF_THE_CHECKOUT = ("commit of didact", "uncommitted changes of didact")
"""What tests run in is changed while it is worked on."""


def differences(plan: Reproduction) -> list[Difference]:
    return [each for each in plan.differences if each.what not in OF_THE_CHECKOUT]


def moved(history: History, runs: Path) -> Records:
    """A copy of the first run, to change it."""
    shutil.copytree(history.first.path, runs / "first")
    return Records(runs)


def change_last(path: Path, **values: Any) -> None:
    """The last line of a JSON lines file with other values."""
    *lines, last = read_jsonl(path)
    path.unlink()
    for line in (*lines, {**last, **values}):
        append_jsonl(path, line)


def test_a_run_done_again_is_equal_to_the_bit(history: History, runs: Path) -> None:
    plan = plan_reproduction("sums@champion", history.records)
    assert (plan.spec.name, plan.spec.register_as, plan.spec.evaluation) == ("first-again", None, None)
    assert differences(plan) == []
    run = begin_again(plan, runs)
    assert run.prepared.read_bytes() == history.first.prepared.read_bytes()
    again = train_here(plan.spec, runs)
    found = compare(plan, again)
    assert again.path == run.path and found.equal and same_weights(history.first, again)
    assert [pair.difference for pair in found.steps] == [0.0, 0.0] and found.first_difference is None
    assert "the same adapter to the bit" in as_text(found)


def test_a_run_that_comes_out_otherwise_is_compared_step_by_step(history: History, runs: Path) -> None:
    plan = plan_reproduction(str(history.first.path), history.records, name="other")
    begin_again(plan, runs)
    training = plan.spec.training.model_copy(update={"learning_rate": 0.02})
    found = compare(plan, train_here(plan.spec.model_copy(update={"training": training}), runs))
    assert not found.equal and len(found.steps) == 2
    first, second = found.steps
    assert first.difference == 0.0 and first.same_samples
    assert found.first_difference == found.largest == second and second.difference > 0
    text = as_text(found)
    assert f"losses differ from step 2 on, most at step 2: by {second.difference:.3g}" in text and "loss then" in text
    assert found.to_plain()["first_step_that_differs"] == 2


def test_few_of_many_steps_are_shown(tmp_path: Path) -> None:
    steps = tuple(StepPair(n, 1.0, 1.0 if n < 70 else 1.0 + n / 1000, n != 90) for n in range(1, 101))
    found = Comparison(tmp_path, "a" * 64, "b" * 64, steps)
    text = as_text(found)
    assert "differ from step 70 on, most at step 100: by 0.1" in text
    assert "other samples were learned from step 90 on" in text
    assert len(text.splitlines()) < 20
    assert Comparison(tmp_path, None, "b" * 64, ()).equal is False
    assert StepPair(1, None, 1.0, False).difference == float("inf")


def test_a_file_of_other_bytes_keeps_it_from_starting(history: History, runs: Path) -> None:
    file, before = history.folder / "sums.jsonl", (history.folder / "sums.jsonl").read_text()
    try:
        file.write_text(before + "\n")
        plan = plan_reproduction("first", history.records)
        (blocked,) = plan.blocked
        assert blocked.what == f"file {file} of source sums" and blocked.recorded.startswith("sha256 ")
        with pytest.raises(RunError, match="cannot be done again"):
            begin_again(plan, runs)
        assert not runs.exists()
        done = CliRunner().invoke(app, ["reproduce", "first", "--check"])
        assert done.exit_code != 0 and "blocks" in done.stdout and isinstance(done.exception, RunError)
    finally:
        file.write_text(before)


def test_a_file_that_is_gone_matters_only_without_its_samples(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = history.folder / "sums.jsonl"
    before = file.read_text()
    try:
        file.unlink()
        (gone,) = differences(plan_reproduction("first", history.records))
        assert (gone.weight, gone.found) == ("differs", "it is gone; its samples are in the cache")
        monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "other cache"))
        (gone,) = plan_reproduction("first", history.records).blocked
        assert "its samples are not in the cache" in gone.found
    finally:
        file.write_text(before)


def test_another_base_blocks_and_other_versions_and_machines_differ(history: History, runs: Path) -> None:
    records = moved(history, runs)
    run = runs / "first"
    change_last(run / "workers.jsonl", capability="AVX1024", device="H900", micro_batch_size=1, fused=True)
    packages = {**next(read_jsonl(run / "provenance.jsonl"))["packages"], "torch": "1.0", "mlflow": "1.0"}
    change_last(run / "provenance.jsonl", packages=packages, python="3.0.0", git={"commit": "f" * 40, "changed": False})
    manifest = json.loads((run / "adapter" / "adapter.json").read_text())
    (run / "adapter" / "adapter.json").write_text(json.dumps({**manifest, "base_fingerprint": "0" * 64}))
    plan = plan_reproduction("first", records)
    told = {each.what.partition(" /")[0]: each for each in plan.differences}
    assert told["base"].weight == "blocks" and told["base"].recorded == "0" * 12
    for what, recorded in (
        *(("torch", "1.0"), ("Python", "3.0.0"), ("commit of didact", "f" * 12)),
        *(("instructions of the processor", "AVX1024"), ("GPU", "H900"), ("micro-batches", "1")),
        ("passes", "shared with other runs on one base"),
    ):
        assert (told[what].weight, told[what].recorded) == ("differs", recorded)
    assert "mlflow" not in told, "it records and computes nothing"
    assert "AVX1024" in as_text(plan)


def test_a_base_that_is_gone_blocks(history: History, runs: Path, tmp_path: Path) -> None:
    records = moved(history, runs)
    recipe = json.loads((runs / "first" / "recipe.json").read_text())
    recipe["model"]["base"] = str(tmp_path / "no base")
    (runs / "first" / "recipe.json").write_text(json.dumps(recipe))
    assert [each.what for each in plan_reproduction("first", records).blocked] == [f"base {tmp_path / 'no base'}"]


def test_an_older_run_says_what_nobody_recorded(history: History, runs: Path) -> None:
    records = moved(history, runs)
    for name in ("prepared.json", "provenance.jsonl", "workers.jsonl"):
        (runs / "first" / name).unlink()
    plan = plan_reproduction("first", records)
    assert {each.weight for each in plan.differences} == {"unknown"}
    assert [each.what for each in plan.differences] == [
        *("samples", "files of source sums", "code and versions", "what computed"),
    ]


def test_a_version_without_its_run_is_done_again_from_its_own_recipe(history: History, runs: Path) -> None:
    plan = plan_reproduction("sums:1", Records(runs, history.registry))
    assert plan.original is None and plan.adapter_sha256 == history.versions[0].adapter_sha256
    assert "samples" in [each.what for each in plan.differences] and plan.blocked == ()
    run = train_here(plan.spec, begin_again(plan, runs).path.parent)
    found = compare(plan, run)
    assert found.equal and found.steps == ()
    assert "cannot be compared" in as_text(replace(found, before="0" * 64))


def test_a_history_that_cannot_be_repeated_is_told(history: History, runs: Path) -> None:
    records = moved(history, runs)
    inexact = {"before": "1 steps", "now": "2 steps", "adapter_sha256": None, "exact": False, "why": "warm-up"}
    append_jsonl(runs / "first" / "descent.jsonl", inexact)
    (found,) = differences(plan_reproduction("first", records))
    assert found.recorded == "went on from 1 steps: warm-up"


def test_the_new_run_has_a_folder_of_its_own(history: History, runs: Path) -> None:
    plan = plan_reproduction("first", history.records)
    run = begin_again(plan, runs)
    assert begin_again(plan, runs) == run, "an interrupted one goes on"
    shutil.copytree(history.second.path, runs / "taken")
    with pytest.raises(RunError, match="is another run"):
        begin_again(replace(plan, spec=plan.spec.model_copy(update={"name": "taken"})), runs)
    shutil.copytree(history.first.path, runs / "first")
    shutil.copytree(history.first.path / "adapter", Run(runs / "first-again").adapter)
    assert plan_reproduction("first", Records(runs)).spec.name == "first-again-2"


def test_what_is_no_run_is_refused(history: History, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run 'nobody'"):
        plan_reproduction("nobody", Records(tmp_path))
