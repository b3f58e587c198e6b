"""Every method under every sharding strategy: two gloo workers against one process, two steps each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from didact.errors import DidactError
from didact.gpu_proof.methods import METHODS
from didact.spec import LoraSpec, MethodSpec
from tests.fakes.recipes import tiny_recipe
from tests.fakes.sharded import Case, adapter_weights, run_case, run_cases, steps
from tests.fakes.workers import run_workers

STRATEGIES = {"DDP": "ddp", "FSDP2": "fsdp", "ZeRO-2": "zero2", "ZeRO-3": "zero3"}
_TOLERANCE = 1e-4


def sharded_case(method: str, strategy: str | None) -> Case:
    """Two short steps of a method in float32; strategy None is for one process."""
    spec = METHODS[method]
    changes: dict[str, Any] = {
        "adapter": without_dropout(spec).model_dump(),
        "training__steps": 2,
        "training__learning_rate": 2e-3,
        "training__global_batch_size": 3,
        "training__micro_batch_size": 1,
        "training__checkpoint_every": 2,
        "training__evaluate_every": 2,
        "tokens__max_length": 96,
    }
    if isinstance(spec, LoraSpec) and spec.init == "loftq":
        changes["model__quantization"] = {"bits": 4}
    if strategy:
        changes["training__sharding"] = {"strategy": strategy}
    return Case(f"{method}-{strategy or 'alone'}".replace(" ", "_").replace(":", ""), changes)


def without_dropout(spec: MethodSpec) -> MethodSpec:
    """Dropout draws differ between numbers of workers."""
    return spec.model_copy(update={"dropout": 0.0}) if "dropout" in type(spec).model_fields else spec


def refusal(method: str, strategy: str, folder: Path) -> str | None:
    """Why the recipe is refused; None when it is not."""
    try:
        tiny_recipe(folder, **sharded_case(method, strategy).changes)
    except DidactError as refused:
        return str(refused)
    return None


def sharded_outcomes(folder: Path, methods: list[str], columns: Sequence[str]) -> dict[tuple[str, str], str]:
    """`yes` or the reason, for every method and strategy (columns are keys of `STRATEGIES`).

    Raises:
        AssertionError: two workers did not come to what one process came to.
        ProcessRaisedException: a run failed that was not refused.
    """
    if not columns:
        return {}
    refused = {(m, column): refusal(m, STRATEGIES[column], folder) for m in methods for column in columns}
    possible = [cell for cell, reason in refused.items() if reason is None]
    for method in methods:
        run_case(folder, sharded_case(method, None))
    run_workers(run_cases, folder, str(folder), [sharded_case(m, STRATEGIES[column]) for m, column in possible])
    for method, column in possible:
        _compare(folder, sharded_case(method, None).name, sharded_case(method, STRATEGIES[column]).name)
    return {cell: reason or "yes" for cell, reason in refused.items()}


def _compare(folder: Path, alone: str, shared: str) -> None:
    expected, found = steps(folder, alone), steps(folder, shared)
    for step, metrics in expected.items():
        for name, value in metrics.items():
            off = abs(found[step][name] - value) / max(abs(value), 1e-6)
            assert off < _TOLERANCE, f"{shared}: {name} of step {step} is {found[step][name]}, alone {value}"
    before, after = adapter_weights(folder, alone), adapter_weights(folder, shared)
    assert before.keys() == after.keys(), f"{shared}: other tensors are saved than by one process"
    for name, weight in before.items():
        torch.testing.assert_close(
            after[name],
            weight,
            rtol=_TOLERANCE,
            atol=_TOLERANCE,
            msg=lambda text, name=name: f"{shared}: {name}: {text}",
        )
