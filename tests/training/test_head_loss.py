"""The loss taken chunk by chunk from hidden states is that of the full logits, and is used only where it is."""

import pytest
import torch
from torch.nn import functional

from didact.tokens import Batch, Sample, pack
from didact.training import Objective
from didact.training.head_loss import frozen_head, head_loss, losses_as_logits
from tests.fakes.models import FAMILIES, UNPACKABLE, tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("logits", [1 << 24, 1], ids=["one chunk", "many chunks"])
def test_loss_and_gradient_are_those_of_full_logits(
    logits: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("didact.models.footprint.logits.LOGITS_AT_ONCE", logits)
    generator = torch.Generator().manual_seed(0)
    hidden = (10 * torch.randn(300, 32, generator=generator)).to(dtype).requires_grad_()
    weight = torch.randn(5000, 32, generator=generator).to(dtype)
    targets = torch.randint(0, 5000, (300,), generator=generator)
    functional.cross_entropy(functional.linear(hidden, weight).float(), targets, reduction="sum").mul(0.5).backward()
    expected, hidden.grad = hidden.grad, None
    loss = head_loss(hidden, weight, targets)
    loss.mul(0.5).backward()
    full = functional.cross_entropy(functional.linear(hidden, weight).float(), targets, reduction="sum")
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, full, rtol=1e-6)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    assert torch.allclose(hidden.grad, expected, **tolerance)


def test_a_hopeless_target_has_a_finite_loss() -> None:
    hidden, weight = torch.full((1, 1), 200.0), torch.tensor([[1.0], [-1.0]])
    assert head_loss(hidden, weight, torch.tensor([1])).item() == 400


def batch_of(lengths: tuple[int, ...]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, 250, (length,), generator=generator, dtype=torch.int32).numpy() for length in lengths]
    return pack([Sample(each, torch.arange(len(each)).ge(2).numpy()) for each in ids])


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - set(UNPACKABLE)))
def test_objective_is_the_cross_entropy_of_the_models_logits(family: str) -> None:
    model, batch = tiny_model(family), batch_of((9, 5, 14))
    model.requires_grad_(False)
    model.get_input_embeddings().weight.requires_grad_(True)
    losses = []
    for objective in (Objective(model, torch.float32), _plain(Objective(model, torch.float32))):
        loss = objective.summed_loss(batch)
        loss.backward()
        losses.append((loss.detach(), model.get_input_embeddings().weight.grad.clone()))
        model.zero_grad()
    (ours, gradient), (plain, expected) = losses
    assert torch.allclose(ours, plain, rtol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-5)


def _plain(objective: Objective) -> Objective:
    objective._head = None
    return objective


def test_only_a_frozen_plain_output_layer_is_left_out() -> None:
    model = tiny_model().requires_grad_(False)
    head = model.get_output_embeddings()
    assert frozen_head(model, torch.float32) is head
    assert frozen_head(model, torch.bfloat16) is None
    head.weight.requires_grad_(True)
    assert frozen_head(model, torch.float32) is None


def test_a_model_that_caps_its_logits_keeps_its_output_layer() -> None:
    model = tiny_model().requires_grad_(False)
    model.register_forward_hook(_cap)
    assert frozen_head(model, torch.float32) is None


def _cap(module: torch.nn.Module, inputs: tuple[object, ...], output: object) -> object:
    output["logits"] = output.logits.tanh()
    return output


def test_the_output_layer_is_whole_again_after_an_error() -> None:
    head = torch.nn.Linear(4, 8, bias=False)
    with pytest.raises(KeyError), losses_as_logits(head, [torch.tensor([3])]):
        assert head(torch.ones(1, 1, 4)).shape == (1, 1)
        raise KeyError
    assert head(torch.ones(1, 4)).shape == (1, 8)
