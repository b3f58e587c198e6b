"""Attention over each row's own columns equals transformers' attention over all of them behind a mask."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from didact.serving.engine.memory import row_attention as module
from didact.serving.engine.memory.row_attention import row_attention, rows_beginning, use_row_attention
from tests.fakes.models import tiny_model

STARTS = [0, 7, 30, 31]
COLUMNS = 32


def layer(heads: int, key_heads: int) -> Any:
    return SimpleNamespace(num_key_value_groups=heads // key_heads, is_causal=True)


def states(heads: int, key_heads: int, value_size: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(heads)
    rows = len(STARTS)
    query = torch.randn(rows, heads, 1, 8, generator=random)
    key = torch.randn(rows, key_heads, COLUMNS + 5, 8, generator=random)[:, :, :COLUMNS]  # part of a larger memory
    value = torch.randn(rows, key_heads, COLUMNS, value_size, generator=random)
    return query, key, value


def mask(*, gaps: bool = False, window: int | None = None) -> torch.Tensor:
    columns = torch.arange(COLUMNS)
    seen = columns >= torch.tensor(STARTS)[:, None]
    if gaps:
        seen[1, 12:15] = False
    if window is not None:
        seen &= columns >= COLUMNS - window
    return seen[:, None, None]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The queries of each call of torch's attention, which always pays row by row."""
    monkeypatch.setattr(module, "_WORTH", 0)
    asked: list[torch.Size] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def counting(query: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        asked.append(query.shape)
        return plain(query, *arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    return asked


@pytest.mark.parametrize("seen", [mask(), mask(gaps=True), mask(window=9), mask(gaps=True, window=20)])
@pytest.mark.parametrize(("heads", "key_heads", "value_size"), [(4, 4, 8), (6, 2, 8), (4, 1, 12)])
def test_it_is_the_attention_of_all_columns(
    heads: int, key_heads: int, value_size: int, seen: torch.Tensor, counted: list[torch.Size]
) -> None:
    query, key, value = states(heads, key_heads, value_size)
    expected, _ = sdpa_attention_forward(layer(heads, key_heads), query, key, value, seen, scaling=0.3)
    counted.clear()
    with rows_beginning(STARTS):
        found, weights = row_attention(layer(heads, key_heads), query, key, value, seen, scaling=0.3)
    assert len(counted) == len(STARTS) and weights is None
    assert torch.allclose(found, expected, atol=1e-6)


def test_masks_of_several_kinds_of_layers_are_told_apart(counted: list[torch.Size]) -> None:
    query, key, value = states(4, 2)
    with rows_beginning(STARTS):
        for seen in (mask(), mask(window=5), mask(gaps=True), mask()):
            found, _ = row_attention(layer(4, 2), query, key, value, seen)
            expected, _ = sdpa_attention_forward(layer(4, 2), query, key, value, seen)
            assert torch.allclose(found, expected, atol=1e-6)


def test_a_damaged_row_stays_alone(counted: list[torch.Size]) -> None:
    query, key, value = states(4, 2)
    value[2] = float("nan")
    with rows_beginning(STARTS):
        found, _ = row_attention(layer(4, 2), query, key, value, mask())
    assert found.isnan().flatten(1).any(-1).tolist() == [False, False, True, False]


@pytest.mark.parametrize("worth", [10**9, 0])
def test_all_columns_are_read_at_once_where_rows_are_alike_or_nothing_is_known_of_them(
    worth: int, counted: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WORTH", worth)
    query, key, value = states(4, 2)
    row_attention(layer(4, 2), query, key, value, mask())
    with rows_beginning(STARTS if worth else [0] * len(STARTS)):
        row_attention(layer(4, 2), query, key, value, mask())
        row_attention(layer(4, 2), torch.cat([query, query], dim=2), key, value, None)
    assert [shape[0] for shape in counted] == [len(STARTS)] * 3


def test_bases_with_another_attention_keep_it() -> None:
    base = tiny_model("llama")
    assert use_row_attention(base) and not use_row_attention(base)
    assert not use_row_attention(tiny_model("bloom"))  # its positions are a bias that only its own attention adds
    eager = tiny_model("llama")
    eager.set_attn_implementation("eager")
    assert not use_row_attention(eager)
    assert eager.config._attn_implementation == "eager"
