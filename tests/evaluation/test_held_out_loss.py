from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM

from didact.errors import DataError, ModelError
from didact.evaluation import held_out_loss
from didact.models.adapter.attach import attach_adapter
from didact.spec import LoraSpec, PrefixSpec
from didact.tokens.types import Sample
from tests.fakes.models import tiny_model

PAD = 257


def make_samples(count: int = 7, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        length = int(rng.integers(4, 40))
        mask = np.arange(length) >= length // 2
        samples.append(Sample(rng.integers(0, 256, length).astype(np.int32), mask))
    return samples


def plain_loss(model: torch.nn.Module, samples: list[Sample]) -> tuple[float, int]:
    """The oracle: one sample at a time, all logits."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for sample in samples:
            ids = torch.from_numpy(sample.ids.astype(np.int64))
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            each = functional.cross_entropy(logits, ids[1:], reduction="none")
            learned = torch.from_numpy(sample.mask[1:])
            total += each[learned].double().sum().item()
            count += int(learned.sum())
    return total / count, count


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_loss_is_the_same_however_it_is_batched(family: str, packing: bool, batch_size: int) -> None:
    model, samples = tiny_model(family), make_samples()
    mean, count = plain_loss(model, samples)
    loss = held_out_loss(model, samples, pad_id=PAD, packing=packing, batch_size=batch_size)
    assert loss.mean == pytest.approx(mean, abs=1e-6)
    assert loss.num_supervised == count


@pytest.mark.parametrize(("spec", "packing"), [
    (LoraSpec(r=4, dropout=0.5), True),
    (LoraSpec(r=4, dropout=0.5), False),
    (PrefixSpec(method="prefix", num_virtual_tokens=5), False),
])  # fmt: skip
def test_adapters_count_and_their_mode_comes_back(spec: LoraSpec | PrefixSpec, packing: bool) -> None:
    samples = make_samples()
    bare = held_out_loss(tiny_model(), samples, pad_id=PAD, packing=False)
    model = attach_adapter(tiny_model(), spec, seed=0, base_name="tiny")
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.5
    mean, count = plain_loss(model.eval(), samples)
    model.train()
    loss = held_out_loss(model, samples, pad_id=PAD, packing=packing, batch_size=3)
    assert (loss.mean, loss.num_supervised) == (pytest.approx(mean, abs=1e-6), count)
    assert abs(loss.mean - bare.mean) > 1e-3
    assert all(module.training for module in model.modules())


def test_a_packed_row_of_a_prefix_tuned_model_is_refused() -> None:
    model = attach_adapter(tiny_model(), PrefixSpec(method="prefix"), seed=0, base_name="tiny")
    with pytest.raises(ModelError, match=r"tokens\.packing"):
        held_out_loss(model, make_samples(), pad_id=PAD, packing=True)


def test_a_model_without_positions_is_refused_packed_rows() -> None:
    class NoPositions(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> None: ...

    with pytest.raises(ModelError, match="NoPositions takes no position_ids"):
        held_out_loss(NoPositions(), make_samples(), pad_id=PAD, packing=True)


def test_samples_without_targets_do_not_count() -> None:
    model, samples = tiny_model(), make_samples()
    silent = Sample(np.arange(9, dtype=np.int32), np.zeros(9, dtype=bool))
    expected = held_out_loss(model, samples, pad_id=PAD, packing=True)
    assert held_out_loss(model, [*samples, silent], pad_id=PAD, packing=True, batch_size=1) == held_out_loss(
        model, samples, pad_id=PAD, packing=True, batch_size=1
    )
    assert expected.num_supervised > 0
    with pytest.raises(DataError, match="none of 1 held-out samples"):
        held_out_loss(model, [silent], pad_id=PAD, packing=False)
    with pytest.raises(DataError, match="none of 0 held-out samples"):
        held_out_loss(model, [], pad_id=PAD, packing=False)


class RowsAtOnce(TorchFunctionMode):
    """Notes how many rows of logits are taken to float32 for a cross-entropy together."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.cross_entropy:
            self.found.append(len(args[0]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("packing", [True, False])
def test_a_large_vocabulary_is_taken_to_float32_a_part_at_a_time(packing: bool) -> None:
    config = LlamaConfig(
        vocab_size=1 << 18, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(0)
    model, samples = LlamaForCausalLM(config).eval(), [*make_samples(), *make_samples()]
    mean, count = plain_loss(model, samples)
    with RowsAtOnce() as rows:
        loss = held_out_loss(model, samples, pad_id=PAD, packing=packing, batch_size=len(samples))
    assert (loss.mean, loss.num_supervised) == (pytest.approx(mean, abs=1e-6), count)
    assert max(rows.found) == 64 and sum(rows.found) == count
