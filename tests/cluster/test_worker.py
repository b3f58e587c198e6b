"""What a worker decides by the recipe alone, without Ray."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.cluster import finetune
from didact.cluster.train import backend
from didact.cluster.worker import export, load_device, settle_dtype
from didact.devices import num_gpus
from didact.errors import AdapterError, DeviceError, ModelError
from didact.models import attach_adapter, check_model, compute_dtype, load_base, verify_adapter
from didact.preparation import prepare_data
from didact.runs import start_run
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


def test_auto_is_the_dtype_of_the_device_that_computes_wherever_weights_are_read_to(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    auto, stated = (tiny_recipe(tmp_path, model__dtype=dtype) for dtype in ("auto", "float16"))
    assert getattr(torch, settle_dtype(auto, cpu).model.dtype) == compute_dtype(auto.model, cpu)
    assert settle_dtype(stated, cpu) == stated


@pytest.mark.parametrize(
    ("sharding", "use_gpu", "expected"),
    [
        ({"strategy": "fsdp"}, True, "nccl"),
        ({"strategy": "fsdp", "cpu_offload": True}, True, "cpu:gloo,cuda:nccl"),
        ({"strategy": "zero3", "cpu_offload": True}, True, "nccl"),
        ({"strategy": "fsdp", "cpu_offload": True}, False, "gloo"),
    ],
    ids=str,
)
def test_weights_in_main_memory_are_gathered_there(
    tmp_path: Path, sharding: dict[str, Any], use_gpu: bool, expected: str
) -> None:
    assert backend(tiny_recipe(tmp_path, training__sharding=sharding), use_gpu=use_gpu) == expected


@pytest.mark.skipif(num_gpus() > 0, reason="this machine has a GPU")
def test_a_gpu_that_this_machine_lacks_is_refused_before_data_is_read(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, placement={"device": "gpu"})
    with pytest.raises(DeviceError, match="a GPU is asked for, but torch finds none"):
        finetune(spec, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_quantized_weights_are_read_to_where_they_compute(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, model__quantization={"bits": 4}, training__sharding={"strategy": "fsdp"})
    assert load_device(spec, GPU, 2) == GPU


def test_a_result_that_nobody_could_load_is_not_put_in_place(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path)
    run, prepared = start_run(spec, tmp_path / "runs"), prepare_data(spec)
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="tiny")
    verify_adapter(export(model, run, spec, prepared))
    before = (run.adapter / "adapter.json").read_bytes()
    next(each for each in model.parameters() if each.requires_grad).data.fill_(math.nan)
    with pytest.raises(AdapterError, match="NaN"):
        export(model, run, spec, prepared)
    assert (run.adapter / "adapter.json").read_bytes() == before


def test_a_whole_model_is_checked_before_it_is_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_recipe(tmp_path, adapter={"method": "full"})
    run, prepared, model = start_run(spec, tmp_path / "runs"), prepare_data(spec), load_base(spec.model)
    check_model(export(model, run, spec, prepared))
    monkeypatch.setattr(type(model), "save_pretrained", lambda model, folder: model.config.save_pretrained(folder))
    with pytest.raises(ModelError, match="no weights"):
        export(model, run, spec, prepared)
    check_model(run.adapter)
