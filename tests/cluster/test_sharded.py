"""FSDP2 on Ray Train, from data to adapter: the losses and the adapter of one worker that holds everything."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from didact.cluster import finetune
from didact.runs import Run
from didact.tracking import effective_records
from tests.fakes.recipes import tiny_recipe


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_fsdp_on_ray_gives_what_one_worker_gives(tmp_path: Path) -> None:
    runs: dict[str, Run] = {}
    for name, workers in (("fsdp", 2), ("ddp", 1)):
        spec = tiny_recipe(
            tmp_path,
            name=name,
            evaluation=None,
            adapter__dropout=0.0,
            model__quantization={"bits": 4},
            training__steps=4,
            training__evaluate_every=2,
            training__sharding={"strategy": name},
            placement__num_workers=workers,
        )
        runs[name] = finetune(spec, tmp_path / "runs").run
    records = zip(*(effective_records(runs[name].steps) for name in ("fsdp", "ddp")), strict=True)
    for cut, whole in records:
        assert cut.sample_ids == whole.sample_ids
        assert cut.metrics.keys() == whole.metrics.keys()
        for metric in cut.metrics.keys() & {"train/loss", "train/grad_norm", "eval/loss"}:
            assert cut.metrics[metric] == pytest.approx(whole.metrics[metric], rel=1e-5)
    cut, whole = (load_file(runs[name].adapter / "adapter_model.safetensors") for name in ("fsdp", "ddp"))
    assert cut.keys() == whole.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(cut[name], weight, rtol=1e-5, atol=2e-5)
