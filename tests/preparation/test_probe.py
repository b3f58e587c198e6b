"""A probe of a tiny recipe, and what the plan says of it."""

from pathlib import Path

import pytest

from didact.preparation import Plan, Probe, prepare_data, probe_recipe
from tests.fakes.recipes import tiny_recipe


def test_a_probe_measures_memory_and_speed_and_keeps_nothing(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, placement__cpus_per_worker=1)
    prepare_data(spec)
    before = set(tmp_path.rglob("*"))
    probe = probe_recipe(spec)
    assert 0 < probe.peak_gib < 2
    assert probe.tokens_per_second > 0
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("workers", [2, {"min": 2, "max": 4}], ids=["fixed", "elastic"])
def test_a_plan_reckons_with_the_probed_speed(tmp_path: Path, workers: object) -> None:
    spec = tiny_recipe(tmp_path, placement__num_workers=workers)
    plan = Plan.of(spec, prepare_data(spec))
    tokens = sum(each.tokens_seen for each in plan.data.sources)
    said = plan.beside(Probe(peak_gib=1.5, tokens_per_second=tokens / 600)).split()
    assert "1.50" in said
    assert said[said.index("minutes") - 1] == "5.0", "600 s of one worker's work, on two workers"
    assert float(said[said.index("s") - 1]) == pytest.approx(300 / plan.data.num_steps, abs=0.01)


def test_a_plan_follows_the_sharding_of_the_recipe(tmp_path: Path) -> None:
    whole = tiny_recipe(tmp_path, placement__num_workers=2)
    cut = tiny_recipe(tmp_path, placement__num_workers=2, training__sharding={"strategy": "fsdp"})
    plain, sharded = (Plan.of(spec, prepare_data(spec)).footprint for spec in (whole, cut))
    assert sharded.weights_gib < 0.6 * plain.weights_gib
    assert sharded.num_trainable == plain.num_trainable
