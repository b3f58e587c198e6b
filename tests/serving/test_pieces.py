"""Pieces of an answer on their way to the gateway: how they are joined, and that none is late, lost or out of order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from didact.serving.engine.protocol import Delta, EngineDied, TokenLogprob
from didact.serving.replica.pieces import in_time, interval, joined
from didact.serving.replica.token_words import TokenWord, Word, WordedDelta


def piece(number: int, finish_reason: str | None = None) -> Delta:
    """The piece with this token."""
    return Delta(f"{number} ", (number,), finish_reason)


def same(delta: Delta) -> Delta:
    """As it came."""
    return delta


def test_one_answer_alone_is_never_joined_and_of_many_each_comes_often_enough() -> None:
    assert interval(1) == 0.0
    assert interval(5) == pytest.approx(0.016)
    assert interval(64) == interval(1000) == pytest.approx(0.2)


def test_what_is_joined_is_what_the_pieces_hold() -> None:
    found = TokenLogprob(1, -0.5, ())
    word = TokenWord(Word(1, b"a", -0.5), ())
    first = WordedDelta("a", (1,), None, (found,), queued_seconds=0.25, words=(word,))
    last = WordedDelta("b", (2, 3), "stop", (found, found), stop_text="END", words=(word, word))
    whole = joined([first, last])
    assert whole == WordedDelta("ab", (1, 2, 3), "stop", (found,) * 3, "END", 0.25, (word,) * 3)
    assert joined([first]) is first


async def _collect(told: AsyncGenerator[Delta, None]) -> list[tuple[int, ...]]:
    return [delta.token_ids async for delta in told]


def test_the_first_goes_at_once_and_the_rest_of_an_interval_together() -> None:
    async def pieces() -> AsyncIterator[Delta]:
        for number in range(5):
            yield piece(number)
            await asyncio.sleep(0)
        yield piece(5, "stop")

    async def run(seconds: float | None) -> list[tuple[int, ...]]:
        return await _collect(in_time(pieces(), same, lambda: seconds))

    assert asyncio.run(run(60.0)) == [(0,), (1, 2, 3, 4, 5)], "the end is not waited for"
    assert asyncio.run(run(None)) == [(0,), (1, 2, 3, 4, 5)]
    plain = asyncio.run(run(0.0))
    assert sum(plain, ()) == (0, 1, 2, 3, 4, 5)


def test_a_held_piece_does_not_wait_for_the_next() -> None:
    async def run() -> None:
        go_on, came = asyncio.Event(), list[int]()

        async def pieces() -> AsyncIterator[Delta]:
            yield piece(0)
            await asyncio.sleep(0)
            yield piece(1)
            await go_on.wait()
            yield piece(2, "length")

        told = in_time(pieces(), lambda delta: (came.extend(delta.token_ids), delta)[1], lambda: 0.01)
        assert (await anext(told)).token_ids == (0,)
        assert (await asyncio.wait_for(anext(told), 10)).token_ids == (1,)
        waiting = asyncio.ensure_future(anext(told))
        await asyncio.sleep(0.05)  # longer than an interval: the next one goes when it comes
        assert not waiting.done() and came == [0, 1]
        go_on.set()
        assert (await asyncio.wait_for(waiting, 10)).token_ids == (2,)
        assert [delta async for delta in told] == []

    asyncio.run(run())


def test_what_came_before_a_failure_is_told_before_it() -> None:
    async def pieces() -> AsyncIterator[Delta]:
        yield piece(0)
        await asyncio.sleep(0)
        yield piece(1)
        raise EngineDied("it died")

    async def run() -> list[tuple[int, ...]]:
        told = list[tuple[int, ...]]()
        with pytest.raises(EngineDied, match="it died"):
            async for delta in in_time(pieces(), same, lambda: 60.0):
                told.append(delta.token_ids)
        return told

    assert asyncio.run(run()) == [(0,), (1,)]


@pytest.mark.parametrize("waits", [True, False])
def test_the_engine_is_told_at_once_that_nobody_reads_on(waits: bool) -> None:
    async def run() -> None:
        left = asyncio.Event()

        async def pieces() -> AsyncIterator[Delta]:
            try:
                yield piece(0)
                await asyncio.sleep(60)
            finally:
                left.set()

        told = in_time(pieces(), same, lambda: 60.0)
        await anext(told)
        await asyncio.sleep(0)  # what holds pieces waits for the next one
        if waits:
            waiting = asyncio.ensure_future(anext(told))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait((waiting,), timeout=10)
        else:
            await told.aclose()
        assert left.is_set()

    asyncio.run(run())
