"""What a worker decides by the recipe alone, without Ray."""

from pathlib import Path
from typing import Any

import pytest
import torch

from didact.cluster.worker import load_device
from tests.fakes.recipes import tiny_recipe

GPU = torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("sharding", "now", "expected"),
    [
        ({"strategy": "fsdp"}, 2, "cpu"),
        ({"strategy": "fsdp"}, 1, "cuda"),  # cuts nothing, and trains where the weights lie
        ({"strategy": "fsdp", "cpu_offload": True}, 1, "cpu"),
        ({"strategy": "ddp"}, 2, "cuda"),
    ],
    ids=str,
)
def test_weights_that_elastic_workers_cut_are_read_to_main_memory(
    tmp_path: Path, sharding: dict[str, Any], now: int, expected: str
) -> None:
    # The device only has a name here.
    changes = {"training__sharding": sharding, "placement__num_workers": {"min": 1, "max": 2}}
    assert load_device(tiny_recipe(tmp_path, **changes), GPU, now).type == expected


def test_quantized_weights_are_read_to_where_they_compute(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, model__quantization={"bits": 4}, training__sharding={"strategy": "fsdp"})
    assert load_device(spec, GPU, 2) == GPU
