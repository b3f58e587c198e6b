"""First tokens that samples of a row have in common, there once: the same function as each sample whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from didact.errors import ModelError
from didact.evaluation.losses import sample_losses
from didact.models import (
    attach_adapter,
    packed_attention_inside,
    shares_prefixes,
    turn_off_dropout,
    use_packed_attention,
)
from didact.models.packing.gpu_attention import row_bounds, sample_by_sample
from didact.models.packing.packed_kernel import packed_kernel
from didact.models.packing.packed_plan import Span, sample_spans
from didact.preparation import prepare_data
from didact.spec import LoraSpec
from didact.tokens import Batch, Sample, pack
from didact.training import Objective, resolve_sharing
from tests.fakes.models import FAMILIES, UNUSUAL, tiny_model
from tests.fakes.recipes import tiny_recipe

CPU = torch.device("cpu")
HEADS = (20, 20, 20, 20, 33, 150, 150, 3)
OWN = (9, 5, 8, 40, 2, 30, 140, 12)
"""Tokens that samples begin with alike, and those of their own."""


def samples() -> list[Sample]:
    """Beginnings of two kinds, one longer than a block of the kernel, and a sample that is like no other."""
    draw = np.random.default_rng(0)
    kinds = {length: draw.integers(0, 250, length).astype(np.int32) for length in HEADS}
    made = []
    for head, own in zip(HEADS, OWN, strict=True):
        ids = np.concatenate([kinds[head], draw.integers(0, 250, own).astype(np.int32)])
        made.append(Sample(ids, np.arange(len(ids)) > head))
    return made


def switched(family: str = "llama") -> torch.nn.Module:
    model = tiny_model(family)
    assert use_packed_attention(model, max_length=300)
    return model


def losses_and_gradients(family: str, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model = attach_adapter(switched(family), LoraSpec(r=4, target_modules="all-linear"), seed=0, base_name="tiny")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    losses = Objective(model, torch.float32).losses(batch)
    losses.summed.backward()
    return losses.of_targets, [each.grad for each in model.parameters() if each.grad is not None]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "phimoe"])
def test_losses_and_gradients_are_those_of_whole_samples(family: str) -> None:
    whole, shared = pack(samples()), pack(samples(), share_prefixes=True)
    assert shared.input_ids.shape[1] == whole.input_ids.shape[1] - 3 * 20 - 150 < whole.input_ids.shape[1]
    assert (shared.num_tokens, shared.num_supervised) == (whole.num_tokens, whole.num_supervised)
    losses, gradients = losses_and_gradients(family, whole)
    ours, own = losses_and_gradients(family, shared)
    torch.testing.assert_close(ours, losses, atol=1e-5, rtol=1e-5)
    assert len(own) == len(gradients) > 0
    for plain, found in zip(gradients, own, strict=True):
        torch.testing.assert_close(found, plain, atol=2e-5 * plain.abs().max().item(), rtol=1e-4)


def test_losses_of_single_samples_are_those_of_whole_samples() -> None:
    given = {"pad_id": 257, "packing": True, "batch_size": 5}
    plain, counts = sample_losses(switched(), samples(), **given)
    ours, learned = sample_losses(switched(), samples(), share_prefixes=True, **given)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    assert learned.tolist() == counts.tolist() and len(set(ours.tolist())) == len(HEADS)


@pytest.mark.parametrize("heads", [(8, 8), (8, 4)], ids=str)
def test_the_kernel_is_the_dense_mask(heads: tuple[int, int]) -> None:
    batch = pack(samples(), share_prefixes=True)
    length, spans = batch.input_ids.shape[1], sample_spans(batch.position_ids)
    seen = torch.zeros(length, length, dtype=torch.bool)
    for span in spans:
        seen[span.start : span.end, span.head : span.head + span.shared] = True
        seen[span.start : span.end, span.start : span.end] = True
    seen &= torch.ones(length, length, dtype=torch.bool).tril()
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, heads[0]), (2, heads[0]), (2, heads[1]))
    states = [torch.randn(1, number, length, size, generator=generator, requires_grad=True) for number, size in shapes]
    query, key, value = states[0], *(each.repeat_interleave(2, dim=1) for each in states[1:])
    weights = (query @ key.transpose(2, 3) * 0.3).masked_fill(~seen, float("-inf")).softmax(dim=-1)
    dense = (weights @ value).transpose(1, 2)
    packed = packed_kernel(*states, batch.position_ids, 0.3)
    outer = torch.randn(dense.shape, generator=generator)
    torch.testing.assert_close(packed, dense, atol=1e-5, rtol=1e-4)
    for ours, plain in zip(
        torch.autograd.grad(packed, states, outer), torch.autograd.grad(dense, states, outer), strict=True
    ):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES | UNUSUAL))
def test_which_families_can_is_measured(family: str) -> None:
    model = tiny_model(family)
    turn_off_dropout(model)
    packed = use_packed_attention(model, max_length=300)
    assert shares_prefixes(model, CPU) is packed, "every family that is switched can"
    if packed:
        whole, shared = pack(samples()), pack(samples(), share_prefixes=True)
        with torch.inference_mode():
            plain, ours = (Objective(model, torch.float32).losses(batch).of_targets for batch in (whole, shared))
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


def test_what_drops_or_computes_elsewhere_does_not() -> None:
    adapted = attach_adapter(switched(), LoraSpec(r=2, dropout=0.1), seed=0, base_name="tiny")
    assert not shares_prefixes(adapted, CPU)
    assert not shares_prefixes(switched(), torch.device("cuda")), "its weights may lie here until a block is needed"
    assert not shares_prefixes(tiny_model(), CPU), "keeps the mask of transformers"
    model = switched().train()
    assert shares_prefixes(model, CPU) and model.training


def test_attention_that_shows_nothing_of_the_head_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(positions: torch.Tensor) -> tuple[Span, ...]:
        return tuple(Span(span.start, span.end) for span in sample_spans(positions))

    monkeypatch.setattr("didact.models.packing.packed_kernel.sample_spans", apart)
    assert not shares_prefixes(switched(), CPU)


def test_a_model_is_switched_for_a_while() -> None:
    model = tiny_model()
    with packed_attention_inside(model, 300) as found:
        assert found and shares_prefixes(model, CPU)
    assert not shares_prefixes(model, CPU) and model.config._attn_implementation == "sdpa"
    with packed_attention_inside(tiny_model("bloom"), 300) as found:
        assert not found


def test_a_recipe_says_so_too(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, adapter__dropout=0.0)
    assert resolve_sharing(spec, switched(), True, CPU)
    assert not resolve_sharing(spec, switched(), False, CPU)
    assert not resolve_sharing(tiny_recipe(tmp_path, training__base_dropout=True), switched(), True, CPU)


def test_spans_tell_what_is_seen() -> None:
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 5, 4, 0, 1, 1]])
    expected = [(0, 5, 0, 0), (5, 8, 0, 3), (8, 9, 0, 4), (9, 11, 9, 0), (11, 12, 9, 1)]
    assert sample_spans(positions) == tuple(Span(*each) for each in expected)
    with pytest.raises(ModelError, match="begins at position 4, behind one of 3 tokens"):
        sample_spans(torch.tensor([[0, 1, 2, 4, 5]]))


def test_attention_that_does_not_know_of_it_refuses() -> None:
    batch = pack(samples(), share_prefixes=True)
    with pytest.raises(ModelError, match="share their first tokens"):
        row_bounds(tiny_model(), batch.position_ids, torch.device("cuda"))
    states = torch.zeros(1, 2, batch.input_ids.shape[1], 8)
    with pytest.raises(ModelError, match="share their first tokens"):
        sample_by_sample(torch.nn.Identity(), states, states, states, {"position_ids": batch.position_ids})


def test_loaded_steps_hold_the_same_samples_and_sources(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, training__micro_batch_size=4, tokens__template="alpaca")
    prepared = prepare_data(spec)
    loader = prepared.loader(spec, packing=True)
    sharing = replace(loader, share_prefixes=True)
    left_out = 0
    for step in range(3):
        plain, shared = loader.step(step), sharing.step(step)
        assert (shared.num_tokens, shared.num_supervised, shared.sample_ids) == (
            plain.num_tokens,
            plain.num_supervised,
            plain.sample_ids,
        )
        for each, other, owners in zip(plain.micro_batches, shared.micro_batches, shared.sources, strict=True):
            assert other.num_tokens == each.num_tokens and len(owners) == other.num_supervised
            left_out += each.input_ids.shape[1] - other.input_ids.shape[1]
            learned = [sorted(batch.targets[batch.targets >= 0].tolist()) for batch in (each, other)]
            assert learned[0] == learned[1]
    assert left_out > 0, "the template's words are there once"
