"""Two gloo workers under every strategy give the losses and the adapter of one process, and resume.

All runs of two workers share one start of processes, which takes longer than the runs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.errors import SpecError
from tests.fakes.recipes import tiny_recipe
from tests.fakes.sharded import Case, adapter_weights, run_case, run_cases, steps
from tests.fakes.workers import run_workers

pytestmark = pytest.mark.timeout(900)  # the first test of the module waits for all its runs

# Five samples in micro-batches of two: the workers' shares and numbers of micro-batches differ.
_SHORT: dict[str, Any] = {
    "training__steps": 4,
    "training__global_batch_size": 5,
    "training__checkpoint_every": 2,
    "training__evaluate_every": 2,
}
_LORA = {**_SHORT, "adapter__dropout": 0.0}
_FULL = {**_SHORT, "adapter": {"method": "full"}, "training__learning_rate": 1e-3}
_QLORA = {**_LORA, "model__quantization": {"bits": 4}}
_BFLOAT = {**_QLORA, "model__dtype": "bfloat16"}
ONE = [
    Case("lora", _LORA),
    Case("qlora", _QLORA),
    Case("full", _FULL),
    Case("bfloat", _BFLOAT, compute=torch.bfloat16),
]
TWO = [
    ("lora", "ddp", {}),
    ("lora", "fsdp", {}),
    ("lora", "fsdp", {"reshard_after_forward": False}),
    ("lora", "zero1", {}),
    ("lora", "zero2", {}),
    ("lora", "zero3", {}),
    ("qlora", "fsdp", {}),
    ("qlora", "zero2", {}),
    ("qlora", "zero3", {}),
    ("full", "fsdp", {}),
    ("full", "zero2", {}),
    ("full", "zero3", {}),
    ("bfloat", "fsdp", {}),
    ("bfloat", "zero3", {}),
]
RESUMED = [("lora", "fsdp"), ("full", "fsdp"), ("qlora", "zero2"), ("lora", "zero3"), ("full", "zero3")]


def sharded(case: Case, strategy: str, options: dict[str, Any], *, name: str, stop_after: int | None = None) -> Case:
    changes = {**case.changes, "training__sharding": {"strategy": strategy, **options}}
    return replace(case, name=name, changes=changes, stop_after=stop_after)


def label(kind: str, strategy: str, options: dict[str, Any]) -> str:
    return "-".join([kind, strategy, *options])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run of this module, done."""
    folder = tmp_path_factory.mktemp("sharding")
    kinds = {case.name: case for case in ONE}
    for case in ONE:
        run_case(folder, case)
    cases = [
        sharded(kinds[kind], strategy, options, name=label(kind, strategy, options)) for kind, strategy, options in TWO
    ]
    for kind, strategy in RESUMED:
        broken = sharded(kinds[kind], strategy, {}, name=f"{kind}-{strategy}-resumed", stop_after=3)
        cases += [broken, replace(broken, stop_after=None)]
    # Left by two workers under one strategy, for one worker, and for two under another.
    cases += [sharded(kinds["full"], "fsdp", {}, name=name, stop_after=3) for name in ("alone", "changed")]
    cases += [sharded(kinds["full"], "zero2", {}, name="changed")]
    run_workers(run_cases, folder, str(folder), cases)
    run_case(folder, replace(kinds["full"], name="alone"))
    return folder


def check(folder: Path, kind: str, name: str, first_step: int = 1) -> None:
    # float32: sums in another order. bfloat16: the same in a format of 8 bits, over four steps.
    relative, absolute = (2e-3, 5e-2) if kind == "bfloat" else (1e-5, 2e-5)
    expected, found = steps(folder, kind), steps(folder, name)
    assert sorted(found) == list(range(first_step, 5))
    for step, metrics in found.items():
        assert metrics == pytest.approx(expected[step], rel=relative), step
    before, after = adapter_weights(folder, kind), adapter_weights(folder, name)
    assert before.keys() == after.keys()
    for weight in before:
        torch.testing.assert_close(after[weight], before[weight], rtol=relative, atol=absolute)


@pytest.mark.parametrize(("kind", "strategy", "options"), TWO, ids=lambda value: str(value))
def test_two_workers_give_the_losses_and_the_adapter_of_one(
    folder: Path, kind: str, strategy: str, options: dict[str, Any]
) -> None:
    check(folder, kind, label(kind, strategy, options))


@pytest.mark.parametrize(("kind", "strategy"), RESUMED)
def test_a_resumed_run_equals_the_unbroken_one(folder: Path, kind: str, strategy: str) -> None:
    check(folder, kind, f"{kind}-{strategy}-resumed", first_step=3)


@pytest.mark.parametrize("name", ["alone", "changed"])
def test_a_checkpoint_fits_any_number_of_workers_and_any_strategy(folder: Path, name: str) -> None:
    check(folder, "full", name, first_step=3)


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
