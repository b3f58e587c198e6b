"""What a plan says about weights that change over the run, on a tiny base."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from didact.capacity import Cluster
from didact.errors import DataError
from didact.preparation import DataFacts, Plan, prepare_data
from didact.runs import Run
from tests.fakes.recipes import tiny_recipe, write_sums

CURRICULUM = [{"until": 0.25, "weights": {"sums": 1.0}}, {"until": 1.0, "weights": {"sums": 1.0, "more": 3.0}}]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))


def test_stages_are_shown_and_recorded(tmp_path: Path) -> None:
    sources = [{"name": name, "path": str(tmp_path / "sums.jsonl")} for name in ("sums", "more")]
    spec = tiny_recipe(tmp_path, data__sources=sources, data__weight_unit="rows", data__curriculum=CURRICULUM)
    prepared = prepare_data(spec)
    console = Console(width=100, record=True)
    console.print(Plan.of(spec, prepared).render())
    lines = [line.split() for line in console.export_text().splitlines()]
    # 10 steps of 8 samples: a quarter is 20 samples of the first source, then 60 samples one to three
    assert ["2.5", "sums", "20"] in [line[:3] for line in lines]
    assert ["7.5", "sums", "15"] in [line[:3] for line in lines]
    assert ["more", "45"] in [line[:2] for line in lines]
    run = Run(tmp_path / "run")
    run.path.mkdir()
    DataFacts.of(spec, prepared).write(run.data)
    recorded = json.loads(run.data.read_text())
    assert [each["samples_seen"] for each in recorded["sources"]] == [35, 45]
    assert [each["weight"] for each in recorded["sources"]] == [35 / 80, 45 / 80]
    assert [[each["samples"] for each in stage["sources"]] for stage in recorded["stages"]] == [[20, 0], [15, 45]]
    assert DataFacts.read(run.data) == DataFacts.of(spec, prepared)


@pytest.mark.parametrize("world", [2, 3, 8])
def test_the_order_of_a_curriculum_does_not_depend_on_the_number_of_workers(tmp_path: Path, world: int) -> None:
    write_sums(tmp_path / "more.jsonl", rows=31)
    sources = [{"name": name, "path": str(tmp_path / f"{name}.jsonl")} for name in ("sums", "more")]
    spec = tiny_recipe(tmp_path, data__sources=sources, data__curriculum=CURRICULUM, data__interpolate="linear")
    loader = prepare_data(spec).loader(spec)
    for step in (0, 2, 3, 9):
        alone = loader.step(step)
        shares = [loader.step(step, rank, world) for rank in range(world)]
        assert {share.sample_ids for share in shares} == {alone.sample_ids}
        tokens = sorted(row for batch in alone.micro_batches for row in batch.input_ids.flatten().tolist())
        others = [batch for share in shares for batch in share.micro_batches]
        assert sorted(row for batch in others for row in batch.input_ids.flatten().tolist()) == tokens


@pytest.mark.parametrize("text", ["", "[]", '{"sources": [{}], "stages": []}'])
def test_a_record_that_says_nothing_of_the_data_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(DataError, match=r"data\.json does not say what went into the run"):
        DataFacts.read(tmp_path / "data.json")


CLUSTER = Cluster(({"CPU": 4}, {"CPU": 2, "GPU": 1, "accelerator_type:A100": 1}), types=None)


@pytest.mark.parametrize(
    ("placement", "cluster", "found"),
    [
        ({"num_workers": 3, "cpus_per_worker": 2, "device": "cpu"}, CLUSTER, None),
        (
            {"num_workers": 4, "cpus_per_worker": 2, "device": "cpu"},
            CLUSTER,
            "4 workers with 2 CPU each: it has room for 3 of 4. The cluster at RAY_ADDRESS has 2 nodes with 6 CPU, "
            "1 GPU (A100); a run waits 300 s for more",
        ),
        (
            {"num_workers": 2},
            CLUSTER,
            "2 workers with 1 CPU, 1 GPU each: it has room for 1 of 2. The cluster at RAY_ADDRESS has 2 nodes with 6",
        ),
        (
            {"num_workers": 1, "accelerator_type": "H100"},
            replace(CLUSTER, types=()),
            "1 worker with 1 CPU, 1 GPU, H100 each: no GPU of type H100, only A100. The cluster at RAY_ADDRESS has 2 "
            "nodes with 6 CPU, 1 GPU (A100); never will",
        ),
        ({"num_workers": 1, "device": "cpu", "cpus_per_worker": 1}, None, None),
        (
            {"num_workers": 1, "device": "cpu", "cpus_per_worker": 4096},
            None,
            f"1 worker with 4096 CPU each: the largest node has {os.cpu_count()} CPU, and each asks for 4096. This "
            f"machine has 1 node with {os.cpu_count()} CPU, ",
        ),
    ],
)
def test_a_plan_says_what_the_cluster_or_this_machine_lacks(
    tmp_path: Path, placement: dict[str, object], cluster: Cluster | None, found: str | None
) -> None:
    spec = tiny_recipe(tmp_path, placement=placement)
    console = Console(width=300, record=True)
    console.print(Plan.of(spec, prepare_data(spec), on_cpu=True, cluster=cluster).render())
    needs = [line for line in console.export_text().splitlines() if line.startswith("needs ")]
    assert len(needs) == (found is not None)
    assert found is None or needs[0].startswith(f"needs      {found}")


def test_where_a_cluster_has_gpus_workers_compute_on_them(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, placement={"num_workers": 1}, model__dtype="bfloat16")
    prepared = prepare_data(spec)
    on_gpu = Plan.of(spec, prepared, on_cpu=False).footprint
    assert Plan.of(spec, prepared, cluster=CLUSTER).footprint == on_gpu
    assert Plan.of(spec, prepared, cluster=Cluster(({"CPU": 4},), types=None)).footprint != on_gpu
