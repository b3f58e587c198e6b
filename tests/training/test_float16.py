"""In float16 small gradients vanish unless the loss is scaled for the backward pass."""

import pytest
import torch

from didact.errors import SpecError
from didact.gpu_proof.subjects import RandomSteps, random_base, tiny_config
from didact.gpu_proof.training import run_steps
from didact.models import attach_adapter, use_packed_attention
from didact.spec import FinetuneSpec, LoraSpec, validate

CPU = torch.device("cpu")


def trained(dtype: torch.dtype) -> torch.Tensor:
    base = random_base(tiny_config(), CPU, dtype, drawn_on=CPU)
    use_packed_attention(base, 50)
    model = attach_adapter(base, LoraSpec(r=4), seed=0, base_name="random")
    torch.manual_seed(3)
    parameters = [each for each in model.parameters() if each.requires_grad]
    with torch.no_grad():
        for each in parameters:
            each.add_(torch.randn_like(each) * 1e-3)
    run_steps(model, RandomSteps(((50,) * 80,)), 1, dtype, LoraSpec(r=4))
    return torch.cat([each.detach().flatten().float() for each in parameters])


def test_a_long_row_trains_in_float16_as_in_float32() -> None:
    wanted = trained(torch.float32)
    assert (trained(torch.float16) - wanted).norm() / wanted.norm() < 3e-3  # 6.4e-3 with the loss unscaled


def test_deepspeed_in_float16_is_refused() -> None:
    recipe = {
        "name": "half",
        "model": {"dtype": "float16"},
        "data": {"sources": [{"name": "sums", "path": "reasoning-gym:chain_sum", "max_rows": 8}]},
        "training": {"steps": 1, "sharding": {"strategy": "zero2"}},
    }
    with pytest.raises(SpecError, match=r"model\.dtype 'float16' needs its loss scaled"):
        validate(FinetuneSpec, recipe, "recipe")
