"""Who is let in, and how much a key may ask in a minute: requests when they come, tokens when they were used.

request -> authorise -> its Key -> admit -> answer -> charge
"""

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from fastapi import Request

from didact.serving.api.access import record_of
from didact.serving.api.answers import Tally
from didact.serving.api.api_errors import ApiError
from didact.serving.api.keys import Key, Keyring

_MINUTE = 60.0


@dataclass(slots=True)
class _Bucket:
    """Fills steadily up to a minute's worth."""

    per_minute: int
    level: float
    at: float

    def fill(self, now: float) -> None:
        self.level = min(float(self.per_minute), self.level + (now - self.at) * self.per_minute / _MINUTE)
        self.at = now

    def seconds_until(self, level: float) -> float:
        return max(0.0, (level - self.level) * _MINUTE / self.per_minute)


class Admission:
    """Keys and what they have left, as this gateway counts it."""

    def __init__(self, keyring: Keyring, quotas: "Quotas | None" = None) -> None:
        self._keyring, self._quotas = keyring, quotas or Quotas()

    async def authorise(self, request: Request) -> None:
        """Refuse a request without an accepted key, and note in `request.state.key` whose it is.

        Raises:
            ApiError: 401.
        """
        request.state.key = None
        if self._keyring.is_open:
            return
        request.state.key = self._sent(request)
        if request.state.key is None:
            raise ApiError(401, "Incorrect or missing API key; send it as a bearer token.", code="invalid_api_key")
        record_of(request).key = request.state.key.name

    async def authorise_figures(self, request: Request) -> None:
        """Refuse a request for figures of all models without a key that may read them.

        Raises:
            ApiError: 401, 403.
        """
        await self.authorise(request)
        if not self.may_read_figures(request):
            raise ApiError(403, "This key may not read figures; expected one of role metrics.", code="forbidden")

    async def authorise_admin(self, request: Request) -> None:
        """Refuse whoever may not change what is served: an API without keys has nobody who may.

        Raises:
            ApiError: 401, 403.
        """
        await self.authorise(request)
        key: Key | None = request.state.key
        if key is None or "admin" not in key.roles:
            message = "Only a key of role admin may load and unload adapters (`didact keys add NAME --role admin`)."
            raise ApiError(403, message, code="forbidden")

    def owner_key(self, name: str | None) -> tuple[Key | None, bool]:
        """The key of that name, for work that goes on without its client, and whether it still may ask.

        Args:
            name: None for work of an API that was open.
        """
        if name is None:
            return None, self._keyring.is_open
        key = self._keyring.named(name)
        return key, key is not None

    def may_read_figures(self, request: Request) -> bool:
        """Whether whoever asks may know what is asked of which models: anybody, where the API is open."""
        if self._keyring.is_open:
            return True
        key = self._sent(request)
        return key is not None and bool(key.roles)

    def _sent(self, request: Request) -> Key | None:
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        # Anthropic's clients send a header of their own.
        key = sent.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")
        return None if key is None else self._keyring.find(key)

    def admit(self, key: Key | None) -> None:
        """Count a request that will be answered.

        Raises:
            ApiError: 429, with the seconds after which to come again.
        """
        if key is not None and (reached := self._quotas.admit(key)) is not None:
            limit, seconds = reached
            message = f"This key's limit of {limit} is reached; come again in {seconds} s."
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=seconds)

    def priority(self, key: Key | None, asked: int | None) -> int:
        """The priority of a request: what it asks for, else 0, or what the key has at least.

        Raises:
            ApiError: 400 for a smaller one than the key may have.
        """
        least = None if key is None else key.least_priority
        if least is not None and asked is not None and asked < least:
            message = f"priority: found {asked}; this key may ask for {least} and larger ones, which begin later."
            raise ApiError(400, message, code="invalid_value", param="priority")
        return (asked or 0) if least is None else max(asked or 0, least)

    def charge(self, key: Key | None, tally: Tally) -> None:
        """Count the tokens of an answer."""
        if key is not None:
            self._quotas.charge(key, tally.usage.total_tokens)

    async def charged(
        self, events: AsyncGenerator[str, None], key: Key | None, tally: Tally
    ) -> AsyncGenerator[str, None]:
        """The events of a stream, whose tokens are counted at its end."""
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event
        finally:  # also when the client left
            self.charge(key, tally)


class Quotas:
    """What each key has left, in this gateway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def admit(self, key: Key) -> tuple[str, int] | None:
        """Count a request.

        Returns:
            None where it may go on; else the limit that was reached, in words, and the seconds after which to come
            again. What is refused is not counted.
        """
        requests = self._bucket(key, "requests", key.requests_per_minute)
        tokens = self._bucket(key, "tokens", key.tokens_per_minute)
        if requests is not None and requests.level < 1:
            return f"{key.requests_per_minute} requests a minute", math.ceil(requests.seconds_until(1))
        if tokens is not None and tokens.level <= 0:
            return f"{key.tokens_per_minute} tokens a minute", math.ceil(tokens.seconds_until(1))
        if requests is not None:
            requests.level -= 1
        return None

    def charge(self, key: Key, num_tokens: int) -> None:
        """Count tokens that were used. They may be more than were left, and are then waited for."""
        tokens = self._bucket(key, "tokens", key.tokens_per_minute)
        if tokens is not None:
            tokens.level -= num_tokens

    def _bucket(self, key: Key, kind: str, per_minute: int | None) -> _Bucket | None:
        if per_minute is None:
            return None
        now = self._clock()
        bucket = self._buckets.get((key.sha256, kind))
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[key.sha256, kind] = _Bucket(per_minute, float(per_minute), now)
        bucket.fill(now)
        return bucket
