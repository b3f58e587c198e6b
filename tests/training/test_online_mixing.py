"""Per-source training losses, and runs whose shares follow them: resumed, followed, on several workers, fused."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.errors import SpecError
from didact.preparation import DataFacts, prepare_data, write_decided
from didact.runs import Run
from didact.spec import FinetuneSpec, load_spec
from didact.tracking import JsonLinesTracker, effective_records
from didact.training import CheckpointStore
from didact.training.fused import FusedTrial, FusedTrials
from tests.fakes.loops import Loop, run_loop, run_loops
from tests.fakes.recipes import tiny_recipe

RULE = {"every_steps": 3, "window_steps": 5, "temperature": 0.5}


def recipe(folder: Path, **changes: Any) -> FinetuneSpec:
    """`word` has one answer for all, soon learned; `sums` has another for each row."""
    tiny_recipe(folder)
    rows = [{"instruction": f"Say it for the {i}. time.", "output": "yes"} for i in range(40)]
    (folder / "word.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sources = [{"name": name, "path": str(folder / f"{name}.jsonl")} for name in ("sums", "word")]
    common = {"training__steps": 12, "training__evaluate_every": None, "training__schedule": "constant"}
    return tiny_recipe(
        folder,
        **{**common, "data__sources": sources, "data__weight_unit": "rows", "data__online_mixing": RULE, **changes},
    )


def decisions(loop: Loop) -> list[tuple[int, dict[str, int]]]:
    return [(each.step, each.draws) for each in loop.reports if each.draws]


@pytest.mark.parametrize("packing", [True, False])
def test_every_run_of_several_sources_tells_their_losses(tmp_path: Path, packing: bool) -> None:
    spec = recipe(tmp_path, training__steps=1, data__online_mixing=None, tokens__packing=packing, adapter__dropout=0.0)
    one = run_loop(spec, tmp_path / "a").reports[0]
    losses = {name: one.metrics[f"train/{name}/loss"] for name in ("sums", "word")}
    batches = prepare_data(spec).loader(spec).step(0)
    assert sum(batches.targets_of) == batches.num_supervised and min(batches.targets_of) > 0
    for batch, sources in zip(batches.micro_batches, batches.sources, strict=True):
        assert len(sources) == batch.num_supervised
    weighed = sum(loss * count for loss, count in zip(losses.values(), batches.targets_of, strict=True))
    assert one.metrics["train/loss"] == pytest.approx(weighed / batches.num_supervised, rel=1e-5)
    # The twin: what a batch of one source alone would have lost.
    for number, name in enumerate(losses):
        weights = [float(name == each) for each in losses]
        own = [{**each.model_dump(), "weight": weight} for each, weight in zip(spec.data.sources, weights, strict=True)]
        apart = recipe(tmp_path, training__steps=1, data__online_mixing=None, data__sources=own, adapter__dropout=0.0)
        count = sum(f"{name}/" in each for each in one.sample_ids)
        apart = apart.model_copy(update={"training": apart.training.model_copy(update={"global_batch_size": count})})
        alone = run_loop(apart, tmp_path / name).reports[0]
        assert alone.sample_ids == tuple(each for each in one.sample_ids if each.startswith(name)), number
        assert alone.metrics["train/loss"] == pytest.approx(losses[name], rel=1e-5)


def test_one_source_has_no_loss_of_its_own(tmp_path: Path) -> None:
    (report,) = run_loop(tiny_recipe(tmp_path, training__steps=1), tmp_path / "a").reports
    assert [name for name in report.metrics if name.endswith("sums/loss")] == []


def test_what_is_learned_out_loses_its_share_and_rows_follow(tmp_path: Path) -> None:
    spec = recipe(tmp_path, training__steps=36, adapter={"method": "full"})
    loop = run_loop(spec, tmp_path / "a")
    made = decisions(loop)
    assert [step for step, _ in made] == list(range(3, 37, 3))
    for step, draws in made[:-1]:
        rows = [each.split("/")[0] for report in loop.reports[step : step + 3] for each in report.sample_ids]
        assert {name: rows.count(name) for name in draws} == draws and sum(draws.values()) == 24
        assert loop.reports[step - 1].metrics["train/word/share"] == draws["word"] / 24
    assert loop.reports[-1].metrics["train/word/loss"] < 0.1 < loop.reports[-1].metrics["train/sums/loss"]
    assert min(draws["word"] for _, draws in made) <= 8


@pytest.mark.parametrize("until", [(4,), (6,), (3, 7, 8)])
def test_a_resumed_run_decides_as_the_unbroken_one(tmp_path: Path, until: tuple[int, ...]) -> None:
    spec = recipe(tmp_path, training__checkpoint_every=100)
    whole = run_loop(spec, tmp_path / "whole")
    parts = []
    for end in (*until, None):
        loop = Loop()
        run_loop(spec, tmp_path / "parts", loop=loop, stop=lambda loop=loop, end=end: loop.done + 1 == end)
        parts.append(loop)
    assert [each.start for each in parts] == [0, *until]
    assert [*itertools.chain(*(each.lineage for each in parts))] == whole.lineage
    assert [*itertools.chain(*(decisions(each) for each in parts))] == decisions(whole) != []
    assert all(torch.equal(parts[-1].weights[name], each) for name, each in whole.weights.items())


def test_a_longer_run_begins_as_the_shorter_one_decided(tmp_path: Path) -> None:
    fixed = {"training__warmup_steps": 2}
    short = run_loop(recipe(tmp_path, training__steps=6, **fixed), tmp_path / "parts")
    rest = run_loop(recipe(tmp_path, **fixed), tmp_path / "parts")
    assert short.lineage + rest.lineage == run_loop(recipe(tmp_path, **fixed), tmp_path / "whole").lineage


def test_a_run_that_follows_what_was_decided_is_the_same_run(tmp_path: Path) -> None:
    spec, run = recipe(tmp_path), Run(tmp_path / "run")
    loop = run_loop(spec, tmp_path / "a")
    tracker = JsonLinesTracker(run.steps, 1)
    for each in loop.reports:
        tracker.log(each.step, each.metrics, sample_ids=list(each.sample_ids), draws=each.draws)
    DataFacts.of(spec, prepare_data(spec)).write(run.data)
    write_decided(run, spec)
    followed = load_spec(FinetuneSpec, run.decided)
    assert followed.data.online_mixing and len(followed.data.online_mixing.decided) == 4
    again = run_loop(followed, tmp_path / "b")
    assert again.lineage == loop.lineage and decisions(again) == []
    assert all(torch.equal(again.weights[name], each) for name, each in loop.weights.items())
    rows = [name.split("/")[0] for each in effective_records(run.steps) for name in each.sample_ids or ()]
    assert {each.name: each.samples_seen for each in DataFacts.read(run.data).sources} == {
        name: rows.count(name) for name in ("sums", "word")
    }
    write_decided(Run(tmp_path / "none"), followed)
    assert not (tmp_path / "none").exists(), "nothing was decided there"


@pytest.mark.parametrize("size", [2, 3])
def test_all_workers_follow_one_decision(tmp_path: Path, size: int) -> None:
    spec = recipe(tmp_path, adapter__dropout=0.0)
    loops = run_loops(spec, tmp_path / "a", size)
    assert all(each.lineage == loops[0].lineage and decisions(each) == decisions(loops[0]) for each in loops)
    alone = run_loop(spec, tmp_path / "b")
    for mine, other in zip(loops[0].reports, alone.reports, strict=True):
        if mine.sample_ids != other.sample_ids:
            break  # a last digit may have turned a sample at a decision
        for name in ("train/loss", "train/sums/loss", "train/word/loss"):
            assert mine.metrics[name] == pytest.approx(other.metrics[name], rel=1e-4)
    assert mine.step > 3


def test_fused_runs_decide_each_for_itself(tmp_path: Path) -> None:
    changes = {"placement__num_workers": 1, "adapter__dropout": 0.0, "training__steps": 5}
    specs = [recipe(tmp_path, name=name, data__seed=seed, **changes) for name, seed in (("one", 0), ("other", 4))]
    group = FusedTrials.on(specs[0], torch.device("cpu"))
    loops = {spec.name: Loop() for spec in specs}
    for spec in specs:
        prepared = prepare_data(spec)
        store = CheckpointStore(tmp_path / spec.name, keep=2, identity="tiny")
        loop = loops[spec.name]
        group.join(FusedTrial(spec.name, spec, prepared.loader(spec), prepared.num_steps, store, [loop]))
    group.run()
    for spec in specs:
        alone = run_loop(spec, tmp_path / f"{spec.name}-alone")
        for mine, other in zip(loops[spec.name].reports[:3], alone.reports, strict=False):
            assert mine.sample_ids == other.sample_ids
            for name in ("train/loss", "train/sums/loss", "train/word/loss"):
                assert mine.metrics[name] == pytest.approx(other.metrics[name], rel=1e-4)
        assert [step for step, _ in decisions(loops[spec.name])] == [3]


def test_too_few_samples_between_decisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="every_steps 3 of 1 samples are fewer samples than there are sources, 4"):
        many = [{"name": f"s{number}", "path": "-"} for number in range(4)]
        recipe(tmp_path, data__sources=many, training__global_batch_size=1, placement__num_workers=1)
