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
        (0.1, 0.002, 50),  # one step for the weights, and as many as take another
        (0.1, 0.0001, 256),  # never more than a round reads
        (0.001, 0.1, 16),  # nor so few that a prompt never ends
    ],
)
def test_a_piece_takes_as_long_as_two_steps(step: float, token: float, expected: int) -> None:
    pace = ReadingPace(256)
    pace.stepped(step)
    pace.read(128, step + 128 * token)
    assert pace.tokens(running=8, waiting=1) == expected
    assert pace.tokens(running=0, waiting=1) == 256


def test_small_pieces_do_not_make_themselves_smaller() -> None:
    """What a piece costs beside its tokens is not taken for theirs."""
    pace = ReadingPace(256)
    pace.stepped(0.1)
    for _ in range(5):
        tokens = pace.tokens(running=1, waiting=1)
        pace.read(24, 0.1 + 24 * 0.002)
        assert tokens == 256 or 49 <= tokens <= 50
    pace.read(16, 0.09)  # as fast as a step: noise
    assert pace.tokens(running=1, waiting=1) == 71


def test_where_more_wait_than_run_they_are_read_faster() -> None:
    pace = ReadingPace(1000)
    pace.stepped(0.1)
    pace.read(64, 0.1 + 64 * 0.002)
    assert [pace.tokens(running=4, waiting=waiting) for waiting in (1, 8, 16, 64)] == [50, 50, 150, 750]


def test_a_pace_that_knows_nothing_reads_a_whole_round() -> None:
    pace = ReadingPace(256)
    assert pace.tokens(running=1, waiting=1) == 256 and pace.together == 0.001
    pace.stepped(0.05)
    assert pace.tokens(running=1, waiting=1) == 256 and pace.together == pytest.approx(0.01)
    pace.stepped(3.0)
    assert pace.together == 0.03


def test_a_round_of_few_tokens_stays_as_small() -> None:
    pace = ReadingPace(4)
    pace.stepped(0.1)
    pace.read(1, 10.0)
    assert pace.tokens(running=1, waiting=1) == 4


def test_a_crowd_that_comes_behind_one_begins_soon() -> None:
    """Over HTTP requests that are sent together come one after the other; the first must not keep others waiting."""
    model, widths = tiny_model(), list[tuple[int, int]]()

    def slowly(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        ids = inputs["input_ids"]
        widths.append((ids.shape[0], ids.shape[1]))
        time.sleep(0.005 + 0.0002 * ids.numel())  # the weights, then the tokens

    first, crowd = request((5, 6, 7), tokens=60), [request((9, row, *range(30)), tokens=2) for row in range(15)]
    expected = [oracle("llama", each) for each in (first, *crowd)]
    model.register_forward_pre_hook(slowly, with_kwargs=True)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer())
    try:
        assert asyncio.run(answers_beside(engine, first, *crowd)) == expected
    finally:
        engine.close()
    begun = next(place for place, (rows, width) in enumerate(widths) if width == 1 and rows == 16)
    alone = sum(1 for rows, width in widths[:begun] if rows == 1 and width == 1)
    assert alone < 20, "steps of the first one alone before all others have begun"


def test_those_who_have_no_place_hurry_nobody() -> None:
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer(), max_batch_size=2)
    crowds, rounds = list[tuple[int, int]](), engine._rounds
    look = rounds._crowd
    rounds._crowd = lambda: crowds.append(look()) or crowds[-1]  # type: ignore[method-assign,func-returns-value]
    try:
        wanted = [request((5, row, 7), tokens=12) for row in range(8)]
        assert asyncio.run(answers_beside(engine, *wanted)) == [oracle("llama", each) for each in wanted]
    finally:
        engine.close()
    assert max(running + waiting for running, waiting in crowds) == 2


def test_a_long_prompt_is_read_in_small_pieces_beside_running_rows_only() -> None:
    """The model takes as long for each token, so a piece of two steps has few tokens."""
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
