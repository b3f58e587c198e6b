"""Runs that are trained together on one base learn what each would learn alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from didact.errors import ModelError, SpecError, TrainingDiverged
from didact.evaluation import held_out_loss
from didact.models import load_base, save_adapter, verify_adapter
from didact.preparation import prepare_data
from didact.spec import FinetuneSpec
from didact.tokens import Sample, pack
from didact.training import CheckpointStore
from didact.training.fused import FusedTrial, FusedTrials
from didact.training.fused.group import shared_rows
from tests.fakes.loops import Loop, run_loop
from tests.fakes.recipes import tiny_recipe

CPU = torch.device("cpu")
DIFFERENT: dict[str, dict[str, Any]] = {
    "wide": {"adapter__r": 8, "adapter__dropout": 0.2, "training__learning_rate": 4e-3, "training__seed": 3},
    "narrow": {
        "adapter__r": 2,
        "adapter__alpha": 16,
        "adapter__dropout": 0.0,
        "adapter__target_modules": ["q_proj", "down_proj"],
        "training__schedule": "linear",
        "training__global_batch_size": 5,
        "training__micro_batch_size": 3,
    },
    "plus": {
        "adapter__rslora": True,
        "adapter__init": "gaussian",
        "adapter__lr_ratio_b": 4,
        "adapter__target_modules": r".*1\.mlp\.(up|gate)_proj",
        "training__steps": 3,
        "training__weight_decay": 0.1,
        "data__seed": 5,
    },
}
"""Rank, scale, dropout, targets, start, rate, schedule, seed, order, batch, length: no two alike."""


def recipe(folder: Path, name: str = "wide", **changes: Any) -> FinetuneSpec:
    common = {"training__steps": 4, "training__checkpoint_every": 2, "training__evaluate_every": None}
    values = {**common, **DIFFERENT[name], "name": name, "placement__num_workers": 1, **changes}
    return tiny_recipe(folder, **values)


def recipes(folder: Path, **changes: Any) -> list[FinetuneSpec]:
    return [recipe(folder, name, **changes) for name in DIFFERENT]


def trial(spec: FinetuneSpec, checkpoints: Path, loop: Loop, **options: Any) -> FusedTrial:
    prepared = prepare_data(spec)
    store = CheckpointStore(checkpoints, keep=spec.training.keep_checkpoints, identity="tiny")
    loader = prepared.loader(spec, share_prefixes=not spec.adapter.model_dump().get("dropout"))
    return FusedTrial(spec.name, spec, loader, prepared.num_steps, store, [loop], **options)


def together(specs: Sequence[FinetuneSpec], folder: Path, **options: Any) -> tuple[FusedTrials, dict[str, Loop]]:
    group, loops = FusedTrials.on(specs[0], CPU, **options), {spec.name: Loop() for spec in specs}
    for spec in specs:
        group.join(trial(spec, folder / spec.name, loops[spec.name]))
    return group, loops


def assert_alike(fused: Loop, alone: Loop) -> None:
    """The same steps on the same samples, with losses that differ by rounding only."""
    assert [each.sample_ids for each in fused.reports] == [each.sample_ids for each in alone.reports]
    assert [each.checkpointed for each in fused.reports] == [each.checkpointed for each in alone.reports]
    for one, other in zip(fused.reports, alone.reports, strict=True):
        for metric in ("train/loss", "train/learning_rate", "train/tokens"):
            assert one.metrics[metric] == pytest.approx(other.metrics[metric], rel=1e-5), (one.step, metric)


@pytest.mark.parametrize(
    "changes, options",
    [
        ({}, {"max_tokens": 100}),
        ({"training__gradient_checkpointing": True, "adapter__dropout": 0.3}, {}),
        ({"model__quantization": {"bits": 4}}, {}),
        ({"tokens__template": "alpaca"}, {"max_tokens": 400}),
    ],
    ids=["passes of few tokens", "activations computed again", "4 bits", "words in common"],
)
def test_losses_are_those_of_each_run_alone(tmp_path: Path, changes: dict[str, Any], options: dict[str, Any]) -> None:
    specs = recipes(tmp_path, **changes)[: 2 if changes else 3]
    group, loops = together(specs, tmp_path / "fused", **options)
    results = group.run()
    for spec in specs:
        alone = run_loop(spec, tmp_path / "alone" / spec.name)
        assert results[spec.name].steps == alone.done == spec.training.steps
        assert_alike(loops[spec.name], alone)


def test_no_two_micro_batches_of_a_run_share_a_pass() -> None:
    sample = Sample(np.arange(4, dtype=np.int32), np.ones(4, dtype=bool))
    four, eight = pack([sample]), pack([sample, sample])
    asked = {"a": [four, four, four], "b": [eight], "c": [four, eight]}
    rows = {limit: ["".join(name for name, _ in row) for row in shared_rows(asked, limit)] for limit in (None, 12, 1)}
    assert rows == {None: ["abc", "ac", "a"], 12: ["ab", "c", "ac", "a"], 1: ["a", "b", "c", "a", "c", "a"]}


def test_a_run_joins_and_another_leaves_between_two_steps(tmp_path: Path) -> None:
    wide, narrow, plus = recipes(tmp_path)
    group, loops = together([wide, narrow], tmp_path / "fused")
    group.step()
    group.join(trial(plus, tmp_path / "fused" / "plus", late := Loop()))
    group.step()
    group.leave("narrow")
    assert group.going == ("wide", "plus")
    group.run()
    assert loops["narrow"].done == 2
    assert_alike(loops["wide"], run_loop(wide, tmp_path / "alone"))
    assert_alike(late, run_loop(plus, tmp_path / "alone plus"))


def test_a_run_goes_on_alone_where_it_was_and_back_again(tmp_path: Path) -> None:
    spec = recipe(tmp_path)
    unbroken = run_loop(spec, tmp_path / "unbroken")
    group, loops = together([spec, recipe(tmp_path, "narrow")], tmp_path / "fused")
    for _ in range(3):
        group.step()
    group.leave("wide")
    alone = run_loop(spec, tmp_path / "fused" / "wide", stop=lambda: True)
    assert (alone.start, alone.done) == (2, 3)
    group.join(trial(spec, tmp_path / "fused" / "wide", last := Loop()))
    group.run()
    assert (last.start, last.done) == (3, 4)
    pieces = Loop(reports=[*loops["wide"].reports[:2], *alone.reports, *last.reports])
    for one, other in zip(pieces.reports, unbroken.reports, strict=True):
        assert one.sample_ids == other.sample_ids
        assert one.metrics["train/loss"] == pytest.approx(other.metrics["train/loss"], rel=1e-5), one.step


def test_its_adapter_is_measured_and_saved_as_if_it_were_alone(tmp_path: Path) -> None:
    specs = recipes(tmp_path, training__evaluate_every=3)
    rows = prepare_data(specs[0]).mixture.held_out["sums"]
    samples = [rows[index] for index in range(len(rows))]

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        return {"eval/loss": held_out_loss(model, samples, pad_id=257, packing=True).mean}

    group, loops = FusedTrials.on(specs[0], CPU), {spec.name: Loop() for spec in specs}
    for spec in specs:
        group.join(trial(spec, tmp_path / spec.name, loops[spec.name], evaluate=evaluate))
    group.run()
    for spec in specs:
        folder = tmp_path / f"adapter of {spec.name}"
        folder.mkdir()
        with group.alone(spec.name) as model:
            save_adapter(model, folder, base="tiny", base_fingerprint="tiny", method="lora")
        assert verify_adapter(folder).method == "lora"
        opened = PeftModel.from_pretrained(load_base(spec.model), folder)
        measured = [each.metrics["eval/loss"] for each in loops[spec.name].reports if "eval/loss" in each.metrics]
        assert len(measured) == (1 if spec.name == "plus" else 2)
        assert evaluate(opened)["eval/loss"] == pytest.approx(measured[-1], rel=1e-6)


def test_a_run_that_diverges_ends_alone(tmp_path: Path) -> None:
    wide, narrow, _ = recipes(tmp_path)
    group, loops = together([wide, narrow], tmp_path / "fused")
    with group.alone("narrow") as model:
        next(each for each in model.parameters() if each.requires_grad).data.fill_(float("nan"))
    assert group.run().keys() == {"wide"}
    with pytest.raises(TrainingDiverged, match="step 1 has loss nan"):
        group.result("narrow")
    assert loops["narrow"].done == 1 and not list((tmp_path / "fused" / "narrow").glob("step-*"))
    assert_alike(loops["wide"], run_loop(wide, tmp_path / "alone"))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"adapter": {"method": "full"}}, "adapter.method: 'full' is no plain LoRA"),
        ({"adapter": {"method": "prompt"}}, "adapter.method: 'prompt'"),
        ({"adapter__dora": True}, "adapter.dora"),
        ({"adapter__init": "pissa"}, "adapter.init: 'pissa'"),
        ({"model__quantization": {"bits": 8}}, "model.quantization.bits: 8 bits"),
        ({"training__sharding": {"strategy": "fsdp"}}, "training.sharding.strategy: 'fsdp'"),
        ({"placement__num_workers": 2}, "placement.num_workers: one worker trains all; found 2"),
        ({"tokens__packing": False}, "tokens.packing: rows are padded"),
        ({"model__quantization": {"bits": 4}}, "model: .*of wide, .*of narrow; all share one base"),
        ({"tokens__max_length": 96}, "tokens.max_length: 128 of wide, 96 of narrow"),
    ],
)
def test_what_cannot_be_fused_is_refused_by_its_field(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    group = FusedTrials.on(recipe(tmp_path), CPU)
    with pytest.raises(SpecError, match=f"narrow cannot be fused with other trials:(?s:.*){words}"):
        group.join(
            trial(tiny_recipe(tmp_path, name="narrow", **{"placement__num_workers": 1, **changes}), tmp_path, Loop())
        )
    assert group.going == ()


def test_the_output_layer_cannot_be_adapted_together(tmp_path: Path) -> None:
    spec = recipe(tmp_path, adapter__target_modules=["lm_head"])
    group, loops = together([recipe(tmp_path, "narrow")], tmp_path / "fused")
    with pytest.raises(ModelError, match=r"adapter\.target_modules names lm_head.*the output layer"):
        group.join(trial(spec, tmp_path / "wide", Loop()))
    group.run()
    assert_alike(loops["narrow"], run_loop(recipe(tmp_path, "narrow"), tmp_path / "alone"))
