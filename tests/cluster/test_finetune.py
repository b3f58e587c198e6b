"""The road on Ray: trained, tracked, evaluated, registered; crashes do not change a single bit."""

import math
from pathlib import Path

import pytest

from didact.cluster import finetune
from didact.env import runs_dir
from didact.errors import PlacementError, TrainingDiverged
from didact.evaluation.page import render_evaluation
from didact.runs import Run, descents
from didact.spec import FinetuneSpec
from didact.tracking import default_uri, effective_records, mlflow_run_id
from didact.tracking.mlflow_tracker import connect
from tests.fakes.lineage import executed, interruptions, lineage, same_weights
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def recipe(folder: Path, name: str, **changes: object) -> FinetuneSpec:
    # Without dropout, whose draws belong to a rank: runs of one and two workers can be compared as well.
    return tiny_recipe(folder, name=name, evaluation=None, adapter__dropout=0.0, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def unbroken(folder: Path, local_ray: None) -> Run:
    return finetune(recipe(folder, "unbroken"), folder / "runs").run


@pytest.mark.fault("T4", "T5")
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_killed_worker_changes_nothing(
    folder: Path, unbroken: Run, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = recipe(folder, f"killed-{rank}")
    run_folder = folder / "runs" / spec.name
    # The local Ray is shared, so the fault travels in the run folder rather than in the environment.
    run_folder.mkdir(parents=True)
    (run_folder / "failpoint").write_text(f"step-rank{rank}:kill@6")
    run = finetune(spec, folder / "runs").run
    assert (run.path / "failpoint-1-struck").exists(), "the fault did not strike"
    assert lineage(run) == lineage(unbroken)
    assert len(executed(run)) > 10, "no step was done twice: nothing was restarted"
    assert same_weights(run, unbroken)


@pytest.mark.nightly
@pytest.mark.fault("T11")
def test_fewer_workers_see_the_same_samples_and_losses(folder: Path, unbroken: Run) -> None:
    one = finetune(recipe(folder, "one", placement__num_workers=1), folder / "runs").run
    for left, right in zip(effective_records(unbroken.steps), effective_records(one.steps), strict=True):
        assert left.sample_ids == right.sample_ids
        assert left.metrics["train/loss"] == pytest.approx(right.metrics["train/loss"], rel=1e-5)
        if "eval/loss" in left.metrics:
            assert left.metrics["eval/loss"] == pytest.approx(right.metrics["eval/loss"], rel=1e-4)


@pytest.mark.fault("T12")
def test_divergence_is_not_retried_and_mlflow_shows_it(folder: Path) -> None:
    changes = {"training__learning_rate": 1e30, "training__max_grad_norm": 1e30, "tracking": {"mlflow": True}}
    with pytest.raises(TrainingDiverged, match="training stopped before changing the weights") as failed:
        finetune(recipe(folder, "diverging", **changes), folder / "runs")
    run = Run(folder / "runs" / "diverging")
    assert interruptions(run) == []
    mlflow, run_id = connect(default_uri(runs_dir())), mlflow_run_id(run.path)
    assert run_id is not None
    losses = {each.step: each.value for each in mlflow.get_metric_history(run_id, "train/loss")}
    assert math.isnan(losses[max(losses)]) and max(losses) == executed(run)[-1]
    shown = mlflow.get_run(run_id)
    assert shown.info.status == "FAILED"
    assert shown.data.tags["didact.last_failure"] == f"TrainingDiverged: {failed.value}"


def test_workers_that_cannot_be_placed_are_an_error_not_a_hang(folder: Path) -> None:
    spec = recipe(folder, "huge", placement={"cpus_per_worker": 64})
    with pytest.raises(PlacementError, match=r"no room for 2 workers with 64 CPU each: the largest node has 2 CPU"):
        finetune(spec, folder / "runs")


def road(folder: Path, name: str, least_gain: float) -> FinetuneSpec:
    changes = {
        "evaluation": {"tasks": [{"task": "held_out"}]},
        "register_as": {"name": name, "gate": {"eval/loss": least_gain}},
        "tracking": {"mlflow": True},
    }
    return tiny_recipe(folder, name="road", **changes)


def test_the_whole_road_registers_once_and_a_gate_keeps_the_alias(folder: Path) -> None:
    first = finetune(road(folder, "tiny", -10.0), folder / "runs")
    assert first.report is not None and first.gate is not None and first.gate.passed
    assert render_evaluation(first.report) == first.run.report_page.read_text(encoding="utf-8")
    assert first.report.markdown() == first.run.report_text.read_text(encoding="utf-8")
    assert first.report.metrics("adapter")["eval/loss"] < first.report.metrics("base")["eval/loss"]
    assert first.version is not None and first.version.aliases == ("candidate",)
    again = finetune(road(folder, "tiny", -10.0), folder / "runs")
    assert again.training is None
    assert again.version is not None and again.version.id == first.version.id == "tiny:1"
    assert again.mlflow_run_id == first.mlflow_run_id is not None
    gated = finetune(road(folder, "gated", 100.0), folder / "runs")
    assert gated.gate is not None and not gated.gate.passed
    assert gated.version is not None and gated.version.aliases == () and gated.version.tags["gate"] == "failed"


@pytest.mark.nightly
def test_a_finished_run_goes_on_to_more_steps_and_equals_a_longer_one(folder: Path) -> None:
    constant = {"training__schedule": "constant", "training__warmup_steps": 2}
    tracked = {"tracking": {"mlflow": True}, "register_as": {"name": "going-on"}}
    short = finetune(recipe(folder, "going-on", training__steps=5, **constant, **tracked))
    first = (short.run.adapter / "adapter_model.safetensors").read_bytes()
    longer = finetune(recipe(folder, "going-on", training__steps=12, **constant, **tracked))
    whole = finetune(recipe(folder, "whole-12", training__steps=12, **constant), folder / "runs")
    assert lineage(longer.run) == lineage(whole.run) and same_weights(longer.run, whole.run)
    assert (longer.run.path / "earlier" / "5-steps" / "adapter" / "adapter_model.safetensors").read_bytes() == first
    (descent,) = descents(longer.run)
    assert descent.exact and (descent.before, descent.now) == ("5 steps", "12 steps")
    client = connect(default_uri(runs_dir()))
    assert longer.mlflow_run_id == short.mlflow_run_id
    assert client.get_run(str(longer.mlflow_run_id)).data.tags["didact.descends_from"] == str(descent)
    assert longer.version is not None and short.version is not None
    assert longer.version.version == short.version.version + 1
    assert longer.version.tags["descends_from"] == str(descent)


@pytest.mark.nightly
def test_a_run_begins_with_the_adapter_of_another(folder: Path) -> None:
    first = finetune(recipe(folder, "first-part", training__steps=6), folder / "runs").run
    spec = recipe(folder, "second-part", training__steps=4, adapter__from=str(first.path))
    second = finetune(spec, folder / "runs").run
    assert (second.start / "adapter_model.safetensors").read_bytes() == (
        first.adapter / "adapter_model.safetensors"
    ).read_bytes()
    (descent,) = descents(second)
    assert descent.before == str(first.path) and descent.adapter_sha256
    begun, fresh = (effective_records(run.steps)[0].metrics["train/loss"] for run in (second, first))
    assert begun < fresh
