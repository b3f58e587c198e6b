"""LoRA+ gives the B matrices a rate of their own; a method's own state is part of a checkpoint."""

from pathlib import Path

import pytest
import torch

from didact.spec import LoraSpec
from didact.training import CheckpointStore, TrainedState
from didact.training.rates import parameter_groups, set_learning_rate
from didact.training.state import MOMENTS


def parameters() -> dict[str, torch.nn.Parameter]:
    names = ("q.lora_A.default.weight", "q.lora_B.default.weight", "v.lora_B.default.weight")
    return {name: torch.nn.Parameter(torch.ones(2)) for name in names}


def test_lora_plus_trains_b_at_its_ratio() -> None:
    named = parameters()
    optimizer = torch.optim.AdamW(parameter_groups(named, LoraSpec(lr_ratio_b=16)), lr=1.0)
    set_learning_rate(optimizer, 0.01)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in named.values()] == pytest.approx([0.01, 0.16, 0.16])


@pytest.mark.parametrize("adapter", [None, LoraSpec()])
def test_without_a_ratio_there_is_one_group_in_order(adapter: LoraSpec | None) -> None:
    named = parameters()
    (group,) = parameter_groups(named, adapter)
    assert [id(p) for p in group["params"]] == [id(p) for p in named.values()]


def test_a_methods_state_comes_back_and_is_verified(tmp_path: Path) -> None:
    state = TrainedState({"x": torch.ones(2)}, {f"{key}.x": torch.ones(2) for key in MOMENTS})
    store = CheckpointStore(tmp_path, keep=2, identity="one")
    store.save(1, state, {"ipt/x": torch.arange(3.0)})
    assert torch.equal(store.load(1, ["x"])[1]["ipt/x"], torch.arange(3.0))
    store.save(2, state)
    assert store.load(2, ["x"])[1] == {}
    store.save(3, state, {"ipt/x": torch.arange(3.0)})
    (tmp_path / "step-00000003" / "method.safetensors").unlink()
    found = store.newest()
    assert found is not None and found.step == 2
