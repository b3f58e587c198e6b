"""Two gloo workers under every strategy give the losses and the adapter of one process, and resume.

Runs of two workers share a start of processes, which takes longer than the runs.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.errors import SpecError
from tests.fakes.made_once import made_once
from tests.fakes.recipes import tiny_recipe
from tests.fakes.sharded import (
    Case,
    adapter_weights,
    break_gradient,
    run_case,
    run_cases,
    save_wide_base,
    steps,
    watch_logits,
)
from tests.fakes.workers import run_workers

pytestmark = pytest.mark.timeout(900)  # the first test of the module waits for all its runs

# Five samples in micro-batches of two: the workers' shares and numbers of micro-batches differ.
_SHORT: dict[str, Any] = {
    "training__steps": 4,
    "training__global_batch_size": 5,
    "training__checkpoint_every": 2,
    "training__evaluate_every": 2,
}
_LORA = {**_SHORT, "adapter__dropout": 0.0, "adapter__lr_ratio_b": 2.0}  # two groups of parameters
_FULL = {**_SHORT, "adapter": {"method": "full"}, "training__learning_rate": 1e-3}
_QLORA = {**_SHORT, "adapter__dropout": 0.0, "model__quantization": {"bits": 4}}
_TOKENS = {**_LORA, "adapter__train_new_tokens": True}
_RECOMPUTE = {**_LORA, "training__gradient_checkpointing": True}
_BFLOAT = {**_QLORA, "model__dtype": "bfloat16"}
ONE = {
    "lora": Case("lora", _LORA),
    "qlora": Case("qlora", _QLORA),
    "full": Case("full", _FULL),
    "tokens": Case("tokens", _TOKENS, base="wide"),
    "recompute": Case("recompute", _RECOMPUTE),
    "bfloat": Case("bfloat", _BFLOAT, compute=torch.bfloat16),
}
TWO: list[tuple[str, str, dict[str, Any]]] = [
    ("lora", "ddp", {}),
    ("lora", "fsdp", {}),
    ("lora", "zero2", {}),
    ("lora", "zero3", {}),
    ("qlora", "fsdp", {}),
    ("qlora", "zero3", {}),
    ("full", "fsdp", {}),
    ("tokens", "fsdp", {}),
    ("tokens", "zero3", {}),
]
MORE: list[tuple[str, str, dict[str, Any]]] = [
    ("lora", "fsdp", {"reshard_after_forward": False}),
    ("lora", "zero1", {}),
    ("qlora", "ddp", {}),
    ("qlora", "zero2", {}),
    ("full", "zero2", {}),
    ("full", "zero3", {}),
    ("tokens", "ddp", {}),
    ("tokens", "zero2", {}),
    ("recompute", "fsdp", {}),
    ("recompute", "zero2", {}),
    ("recompute", "zero3", {}),
    ("bfloat", "fsdp", {}),
    ("bfloat", "zero3", {}),
    ("full", "zero2", {"cpu_offload": True}),
    ("full", "zero3", {"cpu_offload": True}),
]
RESUMED = [("lora", "fsdp"), ("full", "fsdp"), ("qlora", "zero2"), ("lora", "zero3"), ("full", "zero3")]
WATCHED = ("fsdp", "zero3")
# Each does one step from the other's checkpoint.
RELAY = ("zero2", "zero3", "fsdp", "zero2")


def sharded(kind: str, strategy: str, options: dict[str, Any], *, name: str, stop_after: int | None = None) -> Case:
    changes = {**ONE[kind].changes, "training__sharding": {"strategy": strategy, **options}}
    return replace(ONE[kind], name=name, changes=changes, stop_after=stop_after)


def label(kind: str, strategy: str, options: dict[str, Any]) -> str:
    return "-".join([kind, strategy, *options])


def labelled(cases: list[tuple[str, str, dict[str, Any]]]) -> list[Case]:
    return [sharded(kind, strategy, options, name=label(kind, strategy, options)) for kind, strategy, options in cases]


def run_few(folder: str, cases: list[Case]) -> None:
    run_cases(folder, cases)
    break_gradient(Path(folder), "zero2", "broken.json")
    for strategy in WATCHED:
        watch_logits(Path(folder), strategy, f"{strategy}-logits.json")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs that stand for all others, done."""
    return made_once(tmp_path_factory, "few-sharded", make_few)


def make_few(folder: Path) -> None:
    save_wide_base(folder / "wide")
    for kind in ("lora", "qlora", "full", "tokens"):
        run_case(folder, ONE[kind])
    relay = []
    for step, strategy in enumerate(RELAY, 1):
        leg = sharded("lora", strategy, {}, name="relay", stop_after=step if step < len(RELAY) else None)
        relay.append(replace(leg, changes={**leg.changes, "training__checkpoint_every": 1}))
    run_workers(run_few, folder, str(folder), [*labelled(TWO), *relay])


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other strategies, options and number formats, and every way to resume, done."""
    folder = tmp_path_factory.mktemp("more")
    save_wide_base(folder / "wide")
    for case in ONE.values():
        run_case(folder, case)
    cases = labelled(MORE)
    for kind, strategy in RESUMED:
        broken = sharded(kind, strategy, {}, name=f"{kind}-{strategy}-resumed", stop_after=3)
        cases += [broken, replace(broken, stop_after=None)]
    # Left by two workers under one strategy, for one worker, and for two under another.
    cases += [sharded("full", "fsdp", {}, name=name, stop_after=3) for name in ("alone", "changed")]
    cases += [sharded("full", "zero2", {}, name="changed")]
    run_workers(run_cases, folder, str(folder), cases)
    run_case(folder, replace(ONE["full"], name="alone"))
    return folder


def check(folder: Path, kind: str, name: str, first_step: int = 1) -> None:
    # float32: sums in another order; Adam makes more of it where a gradient is small. bfloat16: the same in a format of
    # 8 bits, over four steps.
    relative, absolute = (2e-3, 5e-2) if kind == "bfloat" else (1e-5, 5e-5)
    expected, found = steps(folder, kind), steps(folder, name)
    assert sorted(found) == list(range(first_step, 5))
    for step, metrics in found.items():
        assert metrics == pytest.approx(expected[step], rel=relative), step
    before, after = adapter_weights(folder, kind), adapter_weights(folder, name)
    assert before.keys() == after.keys()
    for weight in before:
        torch.testing.assert_close(after[weight], before[weight], rtol=relative, atol=absolute)


@pytest.mark.parametrize(("kind", "strategy", "options"), TWO, ids=str)
def test_two_workers_give_the_losses_and_the_adapter_of_one(
    few: Path, kind: str, strategy: str, options: dict[str, Any]
) -> None:
    check(few, kind, label(kind, strategy, options))


def test_each_strategy_goes_on_from_the_checkpoint_of_another(few: Path) -> None:
    check(few, "lora", "relay", first_step=4)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(few: Path) -> None:
    outcome = json.loads((few / "broken.json").read_text())
    good, broken = map(float, outcome["norms"])
    assert math.isfinite(good) and not math.isfinite(broken)
    assert outcome["changed"] == []


@pytest.mark.parametrize("strategy", WATCHED)
def test_a_cut_output_layer_gives_the_loss_without_whole_logits(few: Path, strategy: str) -> None:
    ours, plain = json.loads((few / f"{strategy}-logits.json").read_text())
    assert ours["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert ours["norm"] == pytest.approx(plain["norm"], rel=1e-5)
    assert plain["positions"] >= 597  # every position but each sample's first
    assert ours["positions"] < 400


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "strategy", "options"), MORE, ids=str)
def test_other_strategies_and_formats_give_the_same(
    more: Path, kind: str, strategy: str, options: dict[str, Any]
) -> None:
    check(more, kind, label(kind, strategy, options))


@pytest.mark.nightly
@pytest.mark.parametrize(("kind", "strategy"), RESUMED)
def test_a_resumed_run_equals_the_unbroken_one(more: Path, kind: str, strategy: str) -> None:
    check(more, kind, f"{kind}-{strategy}-resumed", first_step=3)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["alone", "changed"])
def test_a_checkpoint_fits_any_number_of_workers_and_any_strategy(more: Path, name: str) -> None:
    check(more, "full", name, first_step=3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"training__sharding": {"cpu_offload": True}}, "strategy 'ddp' cuts nothing"),
        ({"training__sharding": {"strategy": "zero2", "reshard_after_forward": False}}, "an option of strategy 'fsdp'"),
        (
            {"training__sharding": {"strategy": "fsdp"}, "model__quantization": {"bits": 8}},
            "8-bit ones lose their scales when cut; set model.quantization.bits to 4",
        ),
        (
            {"training__sharding": {"strategy": "zero1"}, "adapter": {"method": "adalora"}},
            "it moves ranks by whole gradients.*choose 'ddp' or 'fsdp'",
        ),
    ],
)
def test_impossible_strategies_are_refused_with_the_field_to_change(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SpecError, match=reason):
        tiny_recipe(tmp_path, **changes)
