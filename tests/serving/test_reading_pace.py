"""Prompts are read in pieces that running rows can wait for."""

import asyncio
import time

import pytest
import torch

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine
from didact.serving.engine.reading_pace import ReadingPace
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import answer, answers_beside, oracle, request
from tests.fakes.models import tiny_model

LONG = tuple((3 * place) % 200 for place in range(200))


@pytest.mark.parametrize(
    ("step", "token", "expected"),
    [
        (0.1, 0.002, 100),  # as many as take two steps
        (0.1, 0.0001, 256),  # never more than a round reads
        (0.001, 0.1, 16),  # nor so few that a prompt never ends
    ],
)
def test_a_piece_takes_as_long_as_two_steps(step: float, token: float, expected: int) -> None:
    pace = ReadingPace(256)
    pace.stepped(step)
    pace.read(64, 64 * token)
    assert pace.tokens(rows_run=True) == expected
    assert pace.tokens(rows_run=False) == 256


def test_a_pace_that_knows_nothing_reads_a_whole_round() -> None:
    pace = ReadingPace(256)
    assert pace.tokens(rows_run=True) == 256
    pace.stepped(0.1)
    assert pace.tokens(rows_run=True) == 256


def test_a_round_of_few_tokens_stays_as_small() -> None:
    pace = ReadingPace(4)
    pace.stepped(0.1)
    pace.read(1, 10.0)
    assert pace.tokens(rows_run=True) == 4


def test_a_long_prompt_is_read_in_small_pieces_beside_running_rows_only() -> None:
    """The model takes as long for each token, so two steps are worth two tokens."""
    model, pieces = tiny_model(), list[int]()

    def slowly(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        ids = inputs["input_ids"]
        pieces.append(ids.shape[1])
        time.sleep(0.002 * ids.numel())

    running, arriving = request((5, 6, 7), tokens=150), request(LONG, tokens=2)
    alone = request(tuple(reversed(LONG)), tokens=2)
    expected = [oracle("llama", each) for each in (running, arriving)]
    model.register_forward_pre_hook(slowly, with_kwargs=True)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer())

    try:
        assert asyncio.run(answers_beside(engine, running, arriving)) == expected
        beside_others = [width for width in pieces if width > 1][1:]
        pieces.clear()
        assert asyncio.run(answer(engine, alone)) == oracle("llama", alone)
    finally:
        engine.close()
    assert len(beside_others) > 1
    assert sum(beside_others) == len(LONG)
    assert max(pieces) == len(LONG)
