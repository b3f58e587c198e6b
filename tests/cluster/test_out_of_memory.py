"""Memory that is used up: caught once, then said with what was there, what was estimated and what to lower."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train.v2.api.exceptions import WorkerGroupError

from didact.cluster.failures import classify
from didact.cluster.memory import final_word
from didact.devices import memory_words
from didact.errors import ModelTooLarge, OutOfMemory, WorkersLost
from didact.preparation import Plan, memory_in_words, prepare_data
from tests.fakes.recipes import tiny_recipe

CUDA = """CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 39.39 GiB of which 1.20 GiB is free.
If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True"""


def test_what_a_library_says_follows_what_is_there() -> None:
    words = memory_words(torch.OutOfMemoryError(CUDA), torch.device("cpu"))
    assert words.startswith("out of memory on a machine with ") and words.endswith("of which 1.20 GiB is free.")
    assert "\n" not in words
    assert memory_words(MemoryError(), torch.device("cpu")).endswith(" GiB: MemoryError")


@pytest.mark.parametrize(
    ("changes", "on_gpu", "error", "found"),
    [
        (
            {"training__micro_batch_size": 4},
            *(True, OutOfMemory("x")),
            "with training.micro_batch_size 4 a worker still needs more memory than it has. The estimate was 3 GiB. "
            "Set training.micro_batch_size to 1, or training.gradient_checkpointing to true, or tokens.max_length "
            "below 128, or model.quantization to {bits: 4}, or training.sharding.strategy to fsdp over more workers",
        ),
        (
            {
                "training__micro_batch_size": 1,
                "training__gradient_checkpointing": True,
                "training__sharding": {"strategy": "fsdp"},
                "model__quantization": {"bits": 4},
            },
            *(True, OutOfMemory("x")),
            "Set tokens.max_length below 128, or training.sharding.cpu_offload to true",
        ),
        (
            {"adapter": {"method": "full"}},
            *(False, ModelTooLarge("x")),
            "the model itself does not fit. The estimate was 3 GiB. Set training.sharding.strategy to fsdp over more",
        ),
        (
            {"model__quantization": {"bits": 4}, "training__sharding": {"strategy": "fsdp"}},
            *(False, ModelTooLarge("x")),
            "Set model.base to a smaller one",
        ),
    ],
)
def test_the_last_word_names_what_needs_less(
    tmp_path: Path, changes: dict[str, Any], on_gpu: bool, error: OutOfMemory, found: str
) -> None:
    said = final_word(error, "worker 1: x", tiny_recipe(tmp_path, **changes), "3 GiB", on_gpu=on_gpu)
    assert type(said) is type(error) and said.exit_code == 3
    assert str(said).startswith("worker 1: x; ") and found in str(said)


def test_a_model_that_is_too_large_goes_before_other_failures() -> None:
    peers = {0: WorkersLost("a sum over workers failed"), 2: OutOfMemory("out of memory")}
    failure = classify(WorkerGroupError("failed", {1: ModelTooLarge("too large"), **peers}))
    assert (failure.kind, failure.cause) == ("memory", "worker 1: too large")


def test_memory_is_planned_for_the_longest_samples_too(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, training__micro_batch_size=4)
    long = {"instruction": "Add 1 and 2.", "input": "", "output": "It is 3, " * 12}
    with (tmp_path / "sums.jsonl").open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(long) + "\n")
    prepared = prepare_data(spec)
    plan = Plan.of(spec, prepared)
    assert plan.largest_tokens == 4 * prepared.mixture.tables[0].stats.longest > 1.5 * plan.tokens_per_micro_batch
    assert plan.largest.activations_gib > 1.5 * plan.footprint.activations_gib
    assert plan.largest.weights_gib == plan.footprint.weights_gib


def test_the_estimate_is_the_plans_on_the_device_that_computed(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path)
    prepared = prepare_data(spec)
    here, gpu = (Plan.of(spec, prepared, on_cpu=on_cpu).footprint for on_cpu in (True, False))
    assert gpu.overhead_gib > here.overhead_gib
    assert memory_in_words(here).startswith(f"{here.total_gib:.2f} GiB a worker: weights ")
