"""How much may be asked of an endpoint: in a minute, in all, and until when."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from didact.errors import EndpointError
from didact.spec import EndpointSpec

_MINUTE = 60.0
_BYTES_A_TOKEN = 3
"""English has about four, Chinese three bytes of UTF-8 for a token of today's vocabularies."""


class Clock(Protocol):
    """Time that passes, in seconds."""

    def now(self) -> float:
        """Seconds since any fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let others go on for so long."""
        ...


class WallClock(Clock):
    """The machine's own time, which no change of its clock moves."""

    @override
    def now(self) -> float:
        return time.monotonic()

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Taken:
    """What one request takes of a limit."""

    amount: float
    """May be set to what it was in truth, once that is known."""


class Pace:
    """At most `limit` in any 60 seconds, in the order of asking; None for any amount."""

    def __init__(self, limit: int | None, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._recent: deque[tuple[float, Taken]] = deque()
        self._turn = asyncio.Lock()

    def enter_loop(self) -> None:
        """Go on in another event loop, once nobody waits in the last one."""
        self._turn = asyncio.Lock()

    async def take(self, amount: float) -> Taken:
        """Wait until there is room. More than the whole limit waits for an empty minute."""
        taken = Taken(amount)
        if self._limit is None:
            return taken
        async with self._turn:
            while (wait := self._wait(amount)) > 0:
                await self._clock.sleep(wait)
            self._recent.append((self._clock.now(), taken))
        return taken

    def _wait(self, amount: float) -> float:
        now = self._clock.now()
        while self._recent and self._recent[0][0] <= now - _MINUTE:
            self._recent.popleft()
        used = sum(taken.amount for _, taken in self._recent)
        if not self._recent or used + amount <= (self._limit or 0):
            return 0.0
        return self._recent[0][0] + _MINUTE - now


@dataclass(frozen=True, slots=True)
class Usage:
    """What an endpoint was asked so far."""

    requests: int = 0
    """Requests sent, each try counted."""
    retries: int = 0
    """Those of them that were sent again."""
    prompt_tokens: int = 0
    """As the endpoint counted them, or estimated where it did not say."""
    answer_tokens: int = 0
    """As `prompt_tokens`."""
    cost: float | None = None
    """In the currency of the prices; None where none are given."""

    @property
    def words(self) -> str:
        """In one line."""
        again = f", {self.retries} of them again" if self.retries else ""
        cost = "" if self.cost is None else f", cost {self.cost:.4g}"
        return f"{self.requests} requests{again}, {self.prompt_tokens:,} + {self.answer_tokens:,} tokens{cost}"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one request."""

    prompt: int
    answer: int


def num_tokens(text: str) -> int:
    """Tokens of a text whose tokenizer is not here, estimated from its length."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_A_TOKEN)


class Budget:
    """What all requests together may use. What is under way counts with all that it may come to."""

    def __init__(self, spec: EndpointSpec) -> None:
        self._spec = spec
        self._under_way: list[Tokens] = []
        self._used = Tokens(0, 0)
        self._requests = 0
        self._retries = 0

    def open(self, most: Tokens, again: bool) -> None:
        """Count a request in before it is sent.

        Raises:
            EndpointError: it might go beyond the budget.
        """
        spec, whole = self._spec, _sum([self._used, *self._under_way, most])
        if spec.max_tokens is not None and whole.prompt + whole.answer > spec.max_tokens:
            raise EndpointError(
                f"the budget of {spec.max_tokens} tokens for {spec.model} is used up: {self._used.prompt} of prompts "
                f"and {self._used.answer} of answers so far, the next request may need {most.prompt + most.answer}; "
                "raise max_tokens, or ask fewer questions (num_items)"
            )
        if spec.max_cost is not None and self._cost(whole) > spec.max_cost:
            raise EndpointError(
                f"the budget of {spec.max_cost:g} for {spec.model} is used up: {self._cost(self._used):.4g} so far, "
                f"the next request may cost {self._cost(most):.4g}; raise max_cost, or ask fewer questions (num_items)"
            )
        self._under_way.append(most)
        self._requests += 1
        self._retries += again

    def close(self, most: Tokens, used: Tokens) -> None:
        """Count what it used in truth."""
        self._under_way.remove(most)
        self._used = _sum([self._used, used])

    @property
    def usage(self) -> Usage:
        """So far."""
        cost = self._cost(self._used) if self._spec.prices else None
        return Usage(self._requests, self._retries, self._used.prompt, self._used.answer, cost)

    def _cost(self, tokens: Tokens) -> float:
        prices = self._spec.prices
        return (tokens.prompt * prices.prompt + tokens.answer * prices.answer) / 1e6 if prices else 0.0


def _sum(parts: list[Tokens]) -> Tokens:
    return Tokens(sum(part.prompt for part in parts), sum(part.answer for part in parts))
