"""Adapters on one base, each on its own slice of a row: outputs and gradients of each alone."""

from typing import Any

import pytest
import torch

from didact.errors import ModelError
from didact.models import OwnRandom, SharedBase, Slice, turn_off_dropout
from didact.models.adapter.slice_operator import LoraSlice, LoraSlices, add_slices, factors_of, linear_with_slices
from didact.spec import LoraSpec
from tests.fakes.models import VOCAB, tiny_model

CPU = torch.device("cpu")
SPECS = {"a": LoraSpec(r=3, alpha=5), "b": LoraSpec(r=8, dropout=0.5, init="orthogonal"), "c": LoraSpec(r=1)}
TOKENS = {"a": 7, "b": 5, "c": 3}


def shared(family: str) -> SharedBase:
    model = tiny_model(family).requires_grad_(False)
    turn_off_dropout(model)
    found = SharedBase(model)
    for seed, (name, spec) in enumerate(SPECS.items()):
        found.attach(name, spec, seed=seed, base_name="tiny")
        with found.alone(name) as model, torch.no_grad():
            for path, each in model.named_parameters():
                if "lora_B" in path:
                    each.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
    return found


def row(name: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(VOCAB, (1, TOKENS[name]), generator=torch.Generator().manual_seed(TOKENS[name]))
    return {"input_ids": ids, "position_ids": torch.arange(TOKENS[name])[None]}


def learned(model: torch.nn.Module, rows: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Logits of rows one after the other; their gradients are those of a weighted sum."""
    joined = {key: torch.cat([each[key] for each in rows], dim=1) for key in rows[0]}
    logits: torch.Tensor = model(**joined, use_cache=False).logits
    (logits * torch.linspace(-1, 1, VOCAB)).sum().backward()
    return logits.detach()


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_each_slice_is_what_its_adapter_computes_alone(family: str, apart: bool) -> None:
    base = shared(family)
    expected, gradients = [], {}
    for seed, name in enumerate(SPECS):
        with base.alone(name) as model:
            model.train()
            torch.manual_seed(seed)
            expected.append(learned(model, [row(name)]))
            gradients[name] = {path: each.grad.clone() for path, each in model.named_parameters() if each.requires_grad}
            model.zero_grad()
    base.base.train()
    slices = [Slice(name, TOKENS[name], OwnRandom(CPU, seed)) for seed, name in enumerate(SPECS)]
    before = torch.get_rng_state()
    with base.slices(slices, apart=apart):
        found = learned(base.base, [row(name) for name in SPECS])
    assert torch.equal(before, torch.get_rng_state()), "dropout drew from numbers of the process"
    assert torch.allclose(found, torch.cat(expected, dim=1), rtol=1e-5, atol=1e-5)
    for name, wanted in gradients.items():
        with base.alone(name) as model:
            own = {path: each.grad for path, each in model.named_parameters() if each.requires_grad}
        assert own.keys() == wanted.keys()
        for path, gradient in wanted.items():
            # Sums of many terms are rounded by the largest of them, not by what is left of them.
            rounding = 1e-5 * max(1.0, float(gradient.abs().max()))
            assert torch.allclose(own[path], gradient, rtol=1e-4, atol=rounding), (name, path)


def test_the_base_is_bare_again_and_computes_at_its_own_speed() -> None:
    plain = tiny_model()
    base = shared("llama")
    assert [name for name, _ in base.base.named_modules()] == [name for name, _ in plain.named_modules()]
    assert torch.equal(base.base(**row("a")).logits, plain(**row("a")).logits)
    for name in SPECS:
        base.drop(name)
    assert base.adapters == () and not any("forward" in vars(each) for each in base.base.modules())
    assert not hasattr(base.base, "peft_config")


@pytest.mark.parametrize(
    "family, spec, words",
    [
        ("llama", LoraSpec(target_modules=["lm_head"]), "names lm_head.*it is the output layer"),
        ("llama", LoraSpec(dora=True), "its adapter is more than two products"),
        ("llama", LoraSpec(target_modules=["embed_tokens"]), "Embedding is no plain linear layer"),
        ("qwen2_moe", LoraSpec(target_modules=["gate_up_proj"]), "adapter.target_modules"),
    ],
)
def test_an_adapter_that_cannot_compute_slices_leaves_no_trace(family: str, spec: LoraSpec, words: str) -> None:
    model = tiny_model(family).requires_grad_(False)
    base, names = SharedBase(model), [name for name, _ in model.named_modules()]
    with pytest.raises(ModelError, match=f"(?s){words}"):
        base.attach("odd", spec, seed=0, base_name="tiny")
    assert base.adapters == () and [name for name, _ in model.named_modules()] == names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_ways_of_a_layer_are_two_products_more(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Any:
        return torch.randn(shape, generator=random)

    layer = torch.nn.Linear(6, 4).to(dtype).requires_grad_(False)
    kept = torch.ones(5, 6, dtype=dtype)
    kept[1:3].bernoulli_(0.5, generator=random)
    first, second = drawn(3, 6).requires_grad_(), drawn(4, 3).requires_grad_()
    other = LoraSlice(3, 5, torch.zeros(2, 6), torch.zeros(4, 2), 1.0)
    parts = [LoraSlice(1, 3, first, second, 0.5, 0.5), other]
    together = LoraSlices(parts, kept, factors_of(parts, 5, kept))
    results = []
    for way in ("in one", "apart", "added", "plain"):
        states = torch.linspace(-1, 1, 30).view(1, 5, 6).to(dtype).requires_grad_()
        if way == "plain":
            entered = states[:, 1:3] * kept[1:3] / 0.5
            more = (entered @ first.to(dtype).t()) @ second.to(dtype).t() * 0.5
            output = layer(states) + torch.nn.functional.pad(more, (0, 0, 1, 2))
        elif way == "added":
            output = add_slices(states, layer(states).clone(), together)
        else:
            found = linear_with_slices(layer, states, together if way == "in one" else LoraSlices(parts, kept))
            assert found is not None
            output = found
        output.float().square().sum().backward()
        results.append((output.detach(), states.grad, first.grad, second.grad))
        first.grad = second.grad = None
    wrong = 0.05 if dtype == torch.bfloat16 else 1e-5
    *ways, plainly = results
    for result in ways:
        for one, plain in zip(result, plainly, strict=True):
            assert torch.allclose(one, plain, rtol=wrong, atol=wrong)
