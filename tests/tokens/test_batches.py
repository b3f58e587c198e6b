"""Packing against its plain twin, padding."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from didact.tokens import NO_TARGET, Batch, Sample, pack, pad, supervised_positions
from tests.fakes.models import tiny_model


def sample(ids: list[int], mask: list[int]) -> Sample:
    return Sample(np.array(ids, dtype=np.int32), np.array(mask, dtype=bool))


TWO = (sample([1, 2, 3, 4], [0, 0, 1, 1]), sample([5, 6, 7], [1, 1, 0]))


def test_packed_row() -> None:
    batch = pack(TWO)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch.targets.tolist() == [[-100, 3, 4, -100, 6, -100, -100]]
    assert batch.attention_mask is None
    assert (batch.num_tokens, batch.num_supervised) == (7, 3)
    assert {batch.input_ids.dtype, batch.position_ids.dtype, batch.targets.dtype} == {torch.int64}


def test_padded_rows() -> None:
    batch = pad(TWO, pad_id=9)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4], [5, 6, 7, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3]] * 2
    assert batch.targets.tolist() == [[-100, 3, 4, -100], [6, -100, -100, -100]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert (batch.num_tokens, batch.num_supervised) == (7, 3)


def test_columns_with_targets() -> None:
    assert supervised_positions(pack(TWO)).tolist() == [1, 2, 4]
    assert supervised_positions(pad(TWO, 9)).tolist() == [0, 1, 2]


def summed_loss(model: torch.nn.Module, batch: Batch, kept: torch.Tensor | None = None) -> torch.Tensor:
    extra = {"position_ids": batch.position_ids} if batch.attention_mask is None else {}
    targets = batch.targets if kept is None else batch.targets[:, kept]
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        logits_to_keep=0 if kept is None else kept,
        **extra,
    ).logits
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, reduction="sum")


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_packed_loss_equals_padded_loss(family: str) -> None:
    model = tiny_model(family)
    draw = np.random.default_rng(0)
    samples = [
        Sample(draw.integers(0, 256, length).astype(np.int32), draw.random(length) < 0.5) for length in (23, 5, 2, 40)
    ]
    packed, padded = pack(samples), pad(samples, pad_id=257)
    assert packed.num_supervised == padded.num_supervised > 10
    with torch.no_grad():
        alone = sum(summed_loss(model, pad([each], 257)) for each in samples) / packed.num_supervised
        for batch in (packed, padded):
            for kept in (None, supervised_positions(batch)):
                mean = summed_loss(model, batch, kept) / batch.num_supervised
                torch.testing.assert_close(mean, alone, atol=1e-5, rtol=0)


def alike(shared: int, own: list[int], learned_from: int | None = None) -> Sample:
    """A sample that begins with 100, 101 ... and learns its own tokens, or those from another place on."""
    ids = [*range(100, 100 + shared), *own]
    first = shared if learned_from is None else learned_from
    return sample(ids, [place >= first for place in range(len(ids))])


@pytest.mark.parametrize(
    ("others", "begins"),
    [
        ([alike(20, [1, 2], 21)], [20]),
        ([alike(20, [1, 2])], [19]),  # the token that predicts the first learned one is its own
        ([alike(20, [1, 2], 17), alike(18, [1, 2], 19)], [16, 18]),
        ([alike(15, [1, 2], 16)], [0]),
        ([alike(16, [1, 2], 17), alike(0, [100, 1], 1), alike(20, [3], 30)], [16, 0, 0]),  # the last whole one counts
        ([alike(20, [], 30)], [19]),  # a token of its own is left
        ([alike(20, [1, 2, 3], 22), alike(17, [], 30)], [20, 16]),
        ([alike(20, [1], 30), alike(21, [2, 3], 22)], [20, 20]),  # positions would go on where the others end
    ],
)
def test_first_tokens_in_common_are_there_once(others: list[Sample], begins: list[int]) -> None:
    samples = [alike(30, [7, 8]), *others]
    whole, shared = pack(samples), pack(samples, share_prefixes=True)
    expected = [np.arange(first, len(each.ids)) for each, first in zip(samples, [0, *begins], strict=True)]
    assert shared.position_ids[0].tolist() == np.concatenate(expected).tolist()
    ids = [each.ids[first:] for each, first in zip(samples, [0, *begins], strict=True)]
    assert shared.input_ids[0].tolist() == np.concatenate(ids).tolist()
    assert shared.targets[shared.targets >= 0].tolist() == whole.targets[whole.targets >= 0].tolist()
    assert (shared.num_tokens, shared.num_supervised) == (whole.num_tokens, whole.num_supervised)
