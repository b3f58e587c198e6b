"""A linear layer with LoRA as one operator, beside PEFT's layer and plain products."""

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch._dynamo.utils import counters

from didact.gpu_proof.numerics import CPU
from didact.gpu_proof.subjects import random_base, tiny_config
from didact.models import attach_adapter, compile_blocks, use_packed_attention
from didact.models.adapter.fused_lora import FusedLinear, FusedLinear4bit, _Fused, fuse_lora
from didact.models.adapter.lora_operators import lora_linear
from didact.spec import LoraSpec, QuantizationSpec
from tests.fakes.models import tiny_model


@pytest.fixture
def on_this_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fused layers are meant for GPUs; here they compute on the CPU."""
    monkeypatch.setattr(_Fused, "fused_on", ("cpu",))
    yield


def adapted(dtype: torch.dtype = torch.bfloat16, **changes: object) -> torch.nn.Module:
    base = tiny_model().to(torch.bfloat16).to(dtype).requires_grad_(False)
    use_packed_attention(base, max_length=64)
    model = attach_adapter(base, LoraSpec(r=4, target_modules="all-linear", **changes), seed=0, base_name="tiny")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.train()


def gradients(model: torch.nn.Module) -> torch.Tensor:
    ids, positions = torch.arange(40).view(1, -1), torch.arange(20).repeat(2).view(1, -1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.dtype == torch.bfloat16):
        model(input_ids=ids, position_ids=positions, use_cache=False).logits.float().square().mean().backward()
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.requires_grad])


@pytest.mark.parametrize("bias", [True, False])
def test_the_operator_is_the_layer_with_its_adapter(bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    states, weight, first, second = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((7, 6), (5, 6), (2, 6), (5, 2))
    )
    offset = torch.randn(5, generator=generator, dtype=torch.float64) if bias else None
    for trained in (states, first, second):
        trained.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda states, first, second: lora_linear(states, weight, offset, first, second, 0.5)[0],
        (states, first, second),
    )
    plain = torch.nn.functional.linear(states, weight, offset) + 0.5 * states @ first.T @ second.T
    assert torch.allclose(lora_linear(states, weight, offset, first, second, 0.5)[0], plain)


def test_gradients_are_as_near_to_float32_as_those_of_pefts_layers(
    on_this_device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, fused = gradients(adapted(torch.float32)), gradients(adapted())
    monkeypatch.setattr(_Fused, "fused_on", ())
    plain = gradients(adapted())
    assert not torch.equal(fused, plain)
    assert (fused - exact).norm() < 1.1 * (plain - exact).norm()


def test_an_adapter_that_is_off_adds_nothing(on_this_device: None) -> None:
    model = adapted()
    ids = torch.arange(20).view(1, -1)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        changed = model(input_ids=ids).logits
        with model.disable_adapter():
            off = model(input_ids=ids).logits
        for layer in [each for each in model.modules() if isinstance(each, FusedLinear)]:
            layer.lora_B["default"].weight.zero_()
        base = model(input_ids=ids).logits
    assert torch.equal(off, base)
    assert not torch.equal(changed, base)


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"dora": True}])
def test_what_the_operator_cannot_do_stays_as_it_is(changes: dict[str, object]) -> None:
    model = adapted(**changes)
    assert fuse_lora(model) == 0
    assert not any(isinstance(module, FusedLinear) for module in model.modules())


def test_blocks_compile_without_a_break(on_this_device: None) -> None:
    model = adapted()
    torch._dynamo.reset()
    counters.clear()
    compile_blocks(model, backend="eager")
    gradients(model)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 2  # the first block's input needs no gradient, the others' does


def test_layers_keep_no_float32_copy_of_what_enters_them() -> None:
    kept: list[torch.Tensor] = []
    layer = next(module for module in adapted().modules() if isinstance(module, FusedLinear))
    states = torch.randn(30, layer.in_features, dtype=torch.bfloat16, requires_grad=True)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
    ):
        layer(states)
    assert {tensor.dtype for tensor in kept if tensor.shape[0] == 30} == {torch.bfloat16}


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_a_layer_in_four_bits_computes_as_pefts(
    on_this_device: None, monkeypatch: pytest.MonkeyPatch, kind: Literal["nf4", "fp4"], double: bool
) -> None:
    base = random_base(tiny_config(), CPU, torch.bfloat16, QuantizationSpec(bits=4, type=kind, double=double))
    model = attach_adapter(base, LoraSpec(r=4, target_modules="all-linear"), seed=0, base_name="random")
    layer = next(module for module in model.modules() if isinstance(module, FusedLinear4bit))
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    found = []
    for fused_on in (("cpu",), ()):
        monkeypatch.setattr(_Fused, "fused_on", fused_on)
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(30, layer.in_features, generator=generator, dtype=torch.bfloat16).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = layer(states)
        output.float().square().sum().backward()
        first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        found.append([output.detach(), states.grad, first.grad, second.grad])
        first.grad = second.grad = None
    for fused, plain in zip(*found, strict=True):
        assert (fused.float() - plain.float()).norm() < 1e-2 * plain.float().norm()
    assert not torch.equal(found[0][0], found[1][0])
