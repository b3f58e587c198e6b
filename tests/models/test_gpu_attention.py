"""Samples attended to one by one, and what a GPU's attention is told of a row."""

import pytest
import torch

from didact.models.packing import gpu_attention, row_bounds
from didact.models.packing.gpu_attention import best_alone, sample_by_sample
from tests.fakes.models import tiny_model

LENGTHS = (7, 1, 12)
POSITIONS = torch.cat([torch.arange(length) for length in LENGTHS])[None]


def states(head: int = 8, value_head: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, head), (2, head), (2, value_head))
    return tuple(torch.randn(1, heads, sum(LENGTHS), size, generator=generator) for heads, size in shapes)


def module() -> torch.nn.Module:
    layer = torch.nn.Module()
    layer.num_key_value_groups, layer.is_causal = 2, True
    return layer.eval()


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("told", [True, False], ids=["bounds", "positions"])
def test_one_by_one_is_the_dense_mask(window: int | None, told: bool) -> None:
    query, key, value = states()
    facts = {"position_ids": POSITIONS, "sliding_window": window, "scaling": 0.3}
    if told:
        facts["sample_bounds"] = torch.tensor([0, 7, 8, 20], dtype=torch.int32)
    number = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))
    mask = (number[:, None] == number[None]).tril()
    mask = mask.triu(1 - window) if window else mask
    dense = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask[None, None], scale=0.3, enable_gqa=True
    )
    assert torch.allclose(sample_by_sample(module(), query, key, value, facts), dense.transpose(1, 2), atol=1e-6)


def test_values_with_heads_of_another_size_are_attended_to_alone() -> None:
    query, key, value = states(head=8, value_head=16)
    assert best_alone(query.bfloat16(), value.bfloat16(), {})
    assert sample_by_sample(module(), query, key, value, {"position_ids": POSITIONS}).shape == (1, 20, 4, 16)


def test_flash_attention_takes_what_it_can() -> None:
    query, _, value = states()
    half = query.bfloat16(), value.bfloat16()
    assert not best_alone(*half, {})
    assert best_alone(query, value, {})  # float32
    assert best_alone(query.bfloat16()[..., :7], value.bfloat16()[..., :7], {})  # no multiple of 8
    assert best_alone(*half, {"sample_bounds": torch.tensor([0, 20])})
    assert not best_alone(*half, {"sample_bounds": torch.tensor([0, 20]), "sliding_window": 4})


def test_a_row_is_described_once_for_all_layers() -> None:
    device = torch.device("meta")  # any that is no processor
    facts = row_bounds(tiny_model(), POSITIONS, device)
    assert facts["max_length_q"] == facts["max_length_k"] == 12
    assert facts["cu_seq_lens_q"].device == device
    assert gpu_attention._bounds(POSITIONS)[0].tolist() == [0, 7, 8, 20]
    assert row_bounds(tiny_model(), POSITIONS, torch.device("cpu")) == {}
