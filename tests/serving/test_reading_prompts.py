"""Prompts of many lengths, read in pieces, beside the same prompts read in one pass."""

import asyncio
from collections.abc import Sequence

import pytest
import torch

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine
from didact.serving.engine.batch import DecodingBatch
from didact.serving.engine.row import BatchRow
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import oracle, request
from tests.fakes.models import tiny_model

LENGTHS = [(90, 61, 60, 33, 12, 12, 5, 1), (40, 40, 40), (70, 2), (9,), (3, 50, 20, 50)]


def laid_out(model: torch.nn.Module, lengths: Sequence[int], num_known: int = 0) -> DecodingBatch:
    """A batch whose prompts are to be read; the first tokens of each, where asked for, as if they were known."""

    async def rows_of_a_loop() -> list[BatchRow]:
        texts = [tuple((7 * row + 3 * place) % 200 for place in range(num_known + length))
                 for row, length in enumerate(lengths)]  # fmt: skip
        return [BatchRow(request(text), 1024, byte_tokenizer(), model.device) for text in texts]

    batch = DecodingBatch(model, asyncio.run(rows_of_a_loop()))
    known = None
    if num_known:
        with torch.inference_mode():
            ids = torch.tensor([row.ids[:num_known] for row in batch.rows])
            known = model(input_ids=ids, use_cache=True).past_key_values
    batch.open(known, num_known)
    return batch


def read(batch: DecodingBatch, max_tokens: int | None) -> tuple[torch.Tensor, int]:
    """The logits of the first answer tokens, and in how many pieces the prompts were read."""
    pieces = 0
    while True:
        logits, pieces = batch.read(max_tokens), pieces + 1
        if logits is not None:
            return logits, pieces


def stepped(batch: DecodingBatch) -> torch.Tensor:
    for row in batch.rows:
        row.answer.append(65)
    return batch.step()


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "gemma"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: "-".join(map(str, lengths)))
@pytest.mark.parametrize(("max_tokens", "num_known"), [(64, 0), (24, 0), (1, 0), (40, 16)])
def test_pieces_give_what_one_pass_gives(family: str, lengths: Sequence[int], max_tokens: int, num_known: int) -> None:
    model = tiny_model(family)
    whole, parts = laid_out(model, lengths, num_known), laid_out(model, lengths, num_known)
    torch.testing.assert_close(read(parts, max_tokens)[0], read(whole, None)[0], rtol=1e-4, atol=1e-5)
    assert parts.num_read == whole.num_read == sum(lengths)
    assert parts.num_computed <= whole.num_computed == len(lengths) * max(lengths)
    torch.testing.assert_close(stepped(parts), stepped(whole), rtol=1e-4, atol=1e-5)


def test_a_row_that_leaves_while_prompts_are_read_changes_no_other() -> None:
    model = tiny_model()
    for leaving in range(4):
        whole, parts = laid_out(model, (90, 61, 33, 12)), laid_out(model, (90, 61, 33, 12))
        assert parts.read(32) is None
        for batch in (whole, parts):
            batch.rows[leaving].done = True
            batch.keep_unfinished()
        expected = {row.ids[0]: logits for row, logits in zip(whole.rows, read(whole, None)[0], strict=True)}
        found = {row.ids[0]: logits for row, logits in zip(parts.rows, read(parts, 32)[0], strict=True)}
        assert len(found) == 3
        for first, logits in found.items():
            torch.testing.assert_close(logits, expected[first], rtol=1e-4, atol=1e-5)


def test_short_prompts_wait_for_the_long_one_instead_of_being_padded() -> None:
    batch = laid_out(tiny_model(), (500, 20, 20, 20, 20, 20, 20, 20))
    _, pieces = read(batch, 64)
    assert batch.num_computed <= 1.1 * batch.num_read  # padded to the longest, it would be 6.25 times as many
    assert pieces <= 12


def test_padding_is_computed_where_it_is_little() -> None:
    much, little = laid_out(tiny_model(), (100, 50, 50, 50)), laid_out(tiny_model(), (100, 96, 96, 96))
    assert read(much, 1024)[1] == 2
    assert much.num_computed == much.num_read == 250
    assert read(little, 1024)[1] == 1
    assert little.num_computed == 400


def test_rows_of_one_length_are_read_in_pieces_of_one_size() -> None:
    model, sizes = tiny_model(), []
    model.register_forward_pre_hook(lambda _, args, inputs: sizes.append(inputs["input_ids"].shape), with_kwargs=True)
    read(laid_out(model, [37] * 8), 60)
    assert [tuple(size) for size in sizes] == [(8, 7), *[(8, 6)] * 5]


def test_what_is_left_of_a_round_is_not_read_in_slivers() -> None:
    model, sizes = tiny_model(), []
    wanted = [request(tuple(range(row, row + 37)), tokens=2) for row in range(8)]
    expected = [oracle("llama", each) for each in wanted]
    model.register_forward_pre_hook(lambda _, args, inputs: sizes.append(inputs["input_ids"].shape), with_kwargs=True)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer(), prompt_tokens_per_round=60)

    async def all_at_once() -> list[list[int]]:
        with engine._changed:  # no row begins before all wait
            streams = [engine.generate(each) for each in wanted]
        return [[token async for delta in stream for token in delta.token_ids] for stream in streams]

    try:
        assert asyncio.run(all_at_once()) == expected
    finally:
        engine.close()
    assert [tuple(size) for size in sizes] == [(8, 7), *[(8, 6)] * 5, (8, 1)]


def test_logits_of_pieces_that_nobody_needs_are_not_computed() -> None:
    model, sizes = tiny_model(), []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    _, pieces = read(laid_out(model, (90, 61)), 32)
    assert sizes == [*[0] * (pieces - 1), 1]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("lengths", [(9,), (9, 9, 9), (12, 3)])
def test_the_vocabularys_layer_is_one_product_for_all_rows(family: str, lengths: Sequence[int]) -> None:
    """Of states with gaps between the rows torch would make a product for each, and copies of all weights."""
    model, seen = tiny_model(family), list[bool]()
    model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    batch = laid_out(model, lengths)
    read(batch, 8)
    stepped(batch)
    assert seen and all(seen)
