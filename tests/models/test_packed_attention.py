"""Per-sample attention over a packed row equals each sample alone, and SDPA's dense mask, in every family."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, PreTrainedModel

from didact.errors import ModelError
from didact.models import use_packed_attention
from didact.models.packing.packed_kernel import packed_kernel
from tests.fakes.models import FAMILIES, tiny_model

LENGTHS = (7, 1, 12)
LONG = (180, 170)
OWN_ATTENTION = {"bloom", "codegen", "falcon"}  # classes that do not go through transformers' attention interface
OWN_POSITIONS = {"opt"}  # counts positions itself, so its samples cannot be packed at all
MIXED = (3, 180, 7, 161, 160)


def packed_row(lengths: tuple[int, ...], start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 250, (1, sum(lengths)), generator=generator)
    positions = torch.cat([torch.arange(start, start + length) for length in lengths]).unsqueeze(0)
    return ids, positions


@pytest.mark.parametrize("lengths", [LENGTHS, LONG, MIXED], ids=["short", "long", "mixed"])
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - OWN_ATTENTION - OWN_POSITIONS))
def test_packed_samples_do_not_see_each_other(family: str, lengths: tuple[int, ...]) -> None:
    model = tiny_model(family)
    ids, positions = packed_row(lengths)
    with torch.inference_mode():
        masked = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        alone = torch.cat([model(input_ids=part, use_cache=False).logits for part in ids.split(lengths, dim=1)], dim=1)
        assert use_packed_attention(model, max_length=200)
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    assert torch.allclose(packed, alone, atol=1e-5)
    assert torch.allclose(packed, masked, atol=1e-5)


@pytest.mark.parametrize("lengths", [LENGTHS, MIXED], ids=["short", "mixed"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradients_are_those_of_the_dense_mask(family: str, lengths: tuple[int, ...]) -> None:
    ids, positions = packed_row(lengths)
    gradients = []
    for switch in (False, True):
        model = tiny_model(family)
        if switch:
            assert use_packed_attention(model, max_length=200)
        model(input_ids=ids, position_ids=positions, use_cache=False).logits.square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for dense, packed in zip(*gradients, strict=True):
        assert torch.allclose(dense, packed, atol=1e-6)


@pytest.mark.parametrize("heads", [(8, 8), (8, 4), (4, 12), (1, 1), (1, 5), (3, 1)], ids=str)
@pytest.mark.parametrize("lengths", [(1,), LENGTHS, (3, 133, 40)], ids=str)
def test_keys_and_values_may_have_heads_of_any_size(heads: tuple[int, int], lengths: tuple[int, ...]) -> None:
    _, positions = packed_row(lengths)
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, heads[0]), (2, heads[0]), (2, heads[1]))
    states = [
        torch.randn(1, number, sum(lengths), size, generator=generator, requires_grad=True) for number, size in shapes
    ]
    sample, place = (positions[0] == 0).cumsum(0), torch.arange(sum(lengths))
    seen = (sample[:, None] == sample[None]) & (place[:, None] >= place[None])
    query, key, value = states[0], *(each.repeat_interleave(2, dim=1) for each in states[1:])
    weights = (query @ key.transpose(2, 3) * 0.3).masked_fill(~seen, float("-inf")).softmax(dim=-1)
    dense = (weights @ value).transpose(1, 2)
    packed = packed_kernel(*states, positions, 0.3)
    outer = torch.randn(dense.shape, generator=generator)
    assert packed.shape == dense.shape
    torch.testing.assert_close(packed, dense, atol=1e-5, rtol=1e-4)
    for ours, plain in zip(
        torch.autograd.grad(packed, states, outer), torch.autograd.grad(dense, states, outer), strict=True
    ):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3", "mixtral", "qwen2_moe", "qwen3_moe", "phimoe"])
def test_mixtures_of_experts_and_values_of_other_heads_pack(family: str) -> None:
    packed, alone, switched = in_one_row_and_alone(tiny_model(family))
    assert switched
    assert torch.allclose(packed, alone, atol=1e-5)


@pytest.mark.parametrize("family", ["llama4_text", "gpt_bigcode", "persimmon"])
def test_a_family_that_hands_no_positions_to_its_attention_keeps_its_mask(family: str) -> None:
    packed, alone, switched = in_one_row_and_alone(tiny_model(family))
    assert not switched
    assert torch.allclose(packed, alone, atol=1e-5)


def test_a_family_with_a_mask_of_its_own_or_none_keeps_it() -> None:
    both_ways = AutoModelForCausalLM.from_config(
        BertConfig(vocab_size=272, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    )
    for family in ("doge", "deepseek_v32"):
        assert not use_packed_attention(tiny_model(family), max_length=16)
    assert not use_packed_attention(both_ways.eval(), max_length=16)
    assert both_ways.config._attn_implementation == "sdpa"


def in_one_row_and_alone(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor, bool]:
    ids, positions = packed_row(MIXED)
    with torch.inference_mode():
        alone = torch.cat([model(input_ids=part, use_cache=False).logits for part in ids.split(MIXED, dim=1)], dim=1)
        switched = use_packed_attention(model, max_length=200)
        return model(input_ids=ids, position_ids=positions, use_cache=False).logits, alone, switched


def test_padded_rows_and_generation_still_work() -> None:
    model = tiny_model()
    ids = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    options = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False, "pad_token_id": 257}
    with torch.inference_mode():
        before = model.generate(ids, **options)
        assert use_packed_attention(model, max_length=64)
        assert torch.equal(model.generate(ids, **options), before)


@pytest.mark.parametrize("family", sorted(OWN_ATTENTION))
def test_models_with_attention_of_their_own_are_left_alone(family: str) -> None:
    model = tiny_model(family)
    implementation = model.config._attn_implementation
    assert not use_packed_attention(model, max_length=64)
    assert model.config._attn_implementation == implementation


def test_a_window_shorter_than_the_samples_keeps_its_mask() -> None:
    model = tiny_model("mistral")
    model.config.sliding_window = 8
    assert not use_packed_attention(model, max_length=16)
    assert use_packed_attention(model, max_length=8)


def test_a_row_that_begins_in_the_middle_is_refused() -> None:
    model = tiny_model()
    use_packed_attention(model, max_length=64)
    ids, positions = packed_row(LENGTHS, start=3)
    with pytest.raises(ModelError, match="must begin with position 0"):
        model(input_ids=ids, position_ids=positions, use_cache=False)
