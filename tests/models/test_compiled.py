"""Compiled blocks compute what they computed, for rows of any length, under the same names."""

import torch
from torch._dynamo.utils import counters

from didact.models import attach_adapter, compile_blocks, uncompiled, use_packed_attention
from didact.spec import LoraSpec
from tests.fakes.models import tiny_model


def loss_and_gradients(model: torch.nn.Module, lengths: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    ids = torch.arange(sum(lengths))[None] % 250
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    loss = model(input_ids=ids, position_ids=positions, use_cache=False).logits.square().mean()
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]
    model.zero_grad()
    return loss.detach(), gradients


def test_compiled_blocks_are_the_same_function() -> None:
    base = tiny_model()
    assert use_packed_attention(base, max_length=64)
    spec = LoraSpec(r=4, dropout=0.0, target_modules=["q_proj", "v_proj"])
    model = attach_adapter(base.requires_grad_(False), spec, seed=0, base_name="tiny").train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    rows = ((7, 5, 30), (40, 3))
    plain = [loss_and_gradients(model, lengths) for lengths in rows]
    names = list(model.state_dict())
    assert compile_blocks(model, backend="aot_eager") == 2  # traced and differentiated alike, no C++ compiler
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for lengths, (loss, gradients) in zip(rows, plain, strict=True):
        compiled_loss, compiled_gradients = loss_and_gradients(model, lengths)
        assert torch.allclose(compiled_loss, loss, rtol=1e-5)
        for ours, expected in zip(compiled_gradients, gradients, strict=True):
            assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-7)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    assert list(model.state_dict()) == names


def test_within_uncompiled_nothing_is_compiled() -> None:
    model = tiny_model()
    torch._dynamo.reset()
    counters.clear()
    compile_blocks(model, backend="eager")
    with uncompiled(model):
        plain = model(input_ids=torch.arange(8)[None]).logits
    assert not counters["stats"]
    assert torch.allclose(model(input_ids=torch.arange(8)[None]).logits, plain, atol=1e-6)
    assert counters["stats"]
