"""How often the pieces of an answer cross to the gateway.

Each piece is an object of Ray's: the gateway and the proxy spend about 4 ms of a processor on one, the replica takes it
from the thread that computes. A fast engine with many rows makes more of them than one gateway can pass on.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from didact.serving.engine.protocol import Delta
from didact.serving.replica.token_words import WordedDelta

_SECONDS_OF_AN_ANSWER = 0.004
_LONGEST_SECONDS = 0.2
"""Whoever reads sees a few words at a time; Ray's own serving of language models joins what comes within 50 ms."""


def interval(answers: int) -> float:
    """Seconds between two pieces of an answer, while so many are on their way from this replica.

    Nothing for one alone; of several about 250 pieces a second cross in all, and of many each one's 5 times a second.
    """
    return min((answers - 1) * _SECONDS_OF_AN_ANSWER, _LONGEST_SECONDS)


def joined(pieces: Sequence[Delta]) -> Delta:
    """Pieces of an answer as one."""
    if len(pieces) == 1:
        return pieces[0]
    first, last = pieces[0], pieces[-1]
    return WordedDelta(
        text="".join(piece.text for piece in pieces),
        token_ids=tuple(token for piece in pieces for token in piece.token_ids),
        finish_reason=last.finish_reason,
        logprobs=tuple(each for piece in pieces for each in piece.logprobs),
        stop_text=last.stop_text,
        queued_seconds=first.queued_seconds,
        words=tuple(word for piece in pieces if isinstance(piece, WordedDelta) for word in piece.words),
    )


async def in_time(
    pieces: AsyncIterator[Delta], came: Callable[[Delta], Delta], seconds: Callable[[], float | None]
) -> AsyncGenerator[Delta, None]:
    """The pieces of an answer, those joined that come within an interval.

    The first goes at once, and so does one that comes when nothing has for an interval; no piece waits for the next.

    Args:
        pieces: of the answer.
        came: is told of each when it comes, and returns what is handed on in its place.
        seconds: how long an interval is now; None for until the end.

    Raises:
        Exception: whatever ends `pieces`, once those before it are handed on.
    """
    held: list[Delta] = []
    some = asyncio.Event()

    async def hold() -> None:
        async for piece in pieces:
            held.append(came(piece))
            some.set()

    holding = asyncio.ensure_future(hold())
    holding.add_done_callback(lambda _: some.set())
    try:
        while await some.wait():
            some.clear()
            if held:
                piece = joined(held)
                held.clear()
                yield piece
            if holding.done():
                if not held:
                    break
                some.set()
            else:
                await asyncio.wait((holding,), timeout=seconds())
        await holding  # raises what has ended it
    finally:
        holding.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await holding
