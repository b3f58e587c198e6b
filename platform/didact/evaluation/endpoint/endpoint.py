"""An endpoint as a model: asks become requests, sent again where that helps, and what comes back is read strictly."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from typing_extensions import override

from didact.errors import EndpointError, EndpointRefused
from didact.evaluation.asks import Answer, Ask, Generation, Identity, Likelihood, Model, Text, ask_digest
from didact.evaluation.endpoint.bodies import NotAsked, Request, parts_of, requests_for
from didact.evaluation.endpoint.connection import Connection, Lost, Response
from didact.evaluation.endpoint.limits import Budget, Clock, Pace, Tokens, Usage, WallClock
from didact.evaluation.endpoint.replies import (
    NoAnswer,
    Reply,
    Unreadable,
    error_code,
    error_message,
    read_likelihood,
    read_reply,
    read_text,
)
from didact.evaluation.endpoint.waiting import asked_wait, back_off
from didact.logs import get_logger
from didact.spec import EndpointSpec

_log = get_logger(__name__)
_Read = TypeVar("_Read")
_NOTHING = Tokens(0, 0)
_CHARACTERS_A_TOKEN, _SPARE = 128, 1024
"""The longest tokens of vocabularies are 128 blanks."""


class _Again(Exception):
    """A try that failed in a way that another may not."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait
        """Seconds that the endpoint wants everybody to wait."""


class _Unanswered(Exception):
    """This request gets no answer; the next one may."""


class Endpoint(Model):
    """A model behind an address. Its limits hold over all event loops that it is asked in, one after the other; `close`
    it in each."""

    def __init__(self, spec: EndpointSpec, clock: Clock | None = None) -> None:
        self.spec = spec
        self._clock = clock or WallClock()
        self._connection = Connection(spec)
        self._requests = Pace(spec.requests_per_minute, self._clock)
        self._tokens = Pace(spec.tokens_per_minute, self._clock)
        self._budget = Budget(spec)
        self._slots = asyncio.Semaphore(spec.at_once)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ends: float | None = None
        self._not_before = 0.0
        self._failed_in_a_row = 0
        self._over: EndpointError | None = None

    @property
    @override
    def identity(self) -> Identity:
        digests = {"endpoint": self.spec.url, "model": self.spec.model}
        if self.spec.options:
            digests["options"] = str(sorted(self.spec.options.items()))
        return Identity(f"{self.spec.model} at {urlsplit(self.spec.url).netloc}", digests)

    @property
    @override
    def at_once(self) -> int:
        return self.spec.at_once

    @property
    def usage(self) -> Usage:
        """What was asked of it so far."""
        return self._budget.usage

    async def close(self) -> None:
        """Close its connections; another ask opens new ones."""
        await self._connection.close()

    @override
    async def answer(self, ask: Ask) -> Answer:
        started = self._clock.now()
        if self._ends is None:
            self._ends = started + self.spec.deadline_seconds
        if self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._slots = asyncio.Semaphore(self.spec.at_once)
            self._requests.enter_loop()
            self._tokens.enter_loop()
        try:
            if isinstance(ask, Likelihood):
                answer = await self._likelihoods(ask)
            else:
                answer = await self._texts(ask)
        except (NotAsked, NoAnswer, _Unanswered) as error:
            answer = Answer(problem=f"{self.identity.name}: {error}")
        return Answer(
            answer.texts, answer.likelihoods, answer.problem, answer.num_prompt_tokens, self._clock.now() - started
        )

    async def _texts(self, ask: Generation) -> Answer:
        key = ask_digest(ask)
        read = [
            self._read(request, partial(_text_of, max_new_tokens=ask.max_new_tokens), f"{key} {number}")
            for number, request in enumerate(requests_for(ask, self.spec))
        ]
        found = await _all(read)
        return Answer(tuple(text for text, _ in found), num_prompt_tokens=found[0][1])

    async def _likelihoods(self, ask: Likelihood) -> Answer:
        key, requests = ask_digest(ask), parts_of(ask, self.spec)
        read = [
            self._read(request, partial(read_likelihood, prompt=ask.prompt, continuation=each), f"{key} {number}")
            for number, (request, each) in enumerate(zip(requests, ask.continuations, strict=True))
        ]
        return Answer(likelihoods=tuple(await _all(read)))

    async def _read(self, request: Request, read: Callable[[Reply], _Read], key: str) -> _Read:
        """Send a request until it is answered.

        Raises:
            _Unanswered, NoAnswer: this request gets no answer.
            EndpointError: no request does any more.
        """
        dice = random.Random(key)  # the same waits each time, and others for each request
        tries = self.spec.retries + 1
        for number in range(tries):
            try:
                found = await self._once(request, read, again=number > 0)
            except _Again as failure:
                last = failure
                if number + 1 < tries:
                    await self._wait(back_off(number, dice), failure)
                continue
            except (NoAnswer, _Unanswered):
                self._failed_in_a_row = 0
                raise
            self._failed_in_a_row = 0
            return found
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.spec.gives_up_after:
            raise self._end(
                f"it is down: {self._failed_in_a_row} requests in a row failed in {_times(tries)} each; "
                f"the last one: {last}"
            )
        raise _Unanswered(f"{last}; {_times(tries)}")

    async def _once(self, request: Request, read: Callable[[Reply], _Read], again: bool) -> _Read:
        await self._requests.take(1)
        taken = await self._tokens.take(request.most.prompt + request.most.answer)
        async with self._slots:
            while (wait := self._not_before - self._clock.now()) > 0:
                await self._clock.sleep(wait)
            seconds = self._seconds_left()
            try:
                self._budget.open(request.most, again)
            except EndpointError as error:
                self._over = error
                raise
            used = _NOTHING
            try:
                used = request.most  # until it is known, what was sent may cost all of it
                response = await self._connection.post(request, seconds)
                used = _NOTHING
                self._check(response)
                used = request.most
                reply = read_reply(response.content)
                used = reply.used or request.most
                return read(reply)
            except Lost as error:
                used = _NOTHING if error.unsent else request.most
                raise _Again(str(error)) from None
            except Unreadable as error:
                raise _Again(self._connection.without_key(str(error))) from None
            finally:
                self._budget.close(request.most, used)
                taken.amount = used.prompt + used.answer

    def _check(self, response: Response) -> None:
        """Tell what another status than 200 means.

        Raises:
            _Again: another try may help.
            _Unanswered: the request is refused.
            EndpointRefused: every request would be.
        """
        status = response.status
        if status == 200:
            return
        said = self._connection.without_key(error_message(response.content))
        if status in (401, 403):
            # What it says is left out, since it may repeat a part of the key.
            raise self._end(f"status {status}: {self._connection.about_key}", EndpointRefused)
        if status in (404, 405) or 300 <= status < 400:
            raise self._end(
                f"status {status}: {said}; expected the address up to the version, such as http://localhost:8000/v1, "
                "and a model that is served there",
                EndpointRefused,
            )
        if status == 402 or error_code(response.content) == "insufficient_quota":
            raise self._end(f"status {status}: {said}")
        if status in (408, 409, 425, 429) or status >= 500:
            raise _Again(f"status {status}: {said}", asked_wait(response.headers))
        raise _Unanswered(f"status {status}: {said}")

    async def _wait(self, seconds: float, failure: _Again) -> None:
        if failure.wait is not None:
            seconds = failure.wait
            self._not_before = max(self._not_before, self._clock.now() + seconds)
        if seconds >= self._seconds_left():
            raise self._end(
                f"its deadline of {self.spec.deadline_seconds:g} s would pass while waiting after: {failure}"
            )
        await self._clock.sleep(seconds)

    def _seconds_left(self) -> float:
        """Until the deadline.

        Raises:
            EndpointError: it has passed, or the endpoint is over for another reason.
        """
        if self._over is not None:
            raise self._over
        assert self._ends is not None
        left = self._ends - self._clock.now()
        if left <= 0:
            raise self._end(f"its deadline of {self.spec.deadline_seconds:g} s has passed")
        return left

    def _end(self, why: str, kind: type[EndpointError] = EndpointError) -> EndpointError:
        """Answer nothing any more, for the first reason that there was."""
        if self._over is None:
            self._over = kind(f"{self.identity.name} answers no more. {why}")
            _log.warning(f"{self._over} ({self.usage.words})")
        return self._over


def _text_of(reply: Reply, max_new_tokens: int) -> tuple[Text, int]:
    text, most = read_text(reply), _SPARE + _CHARACTERS_A_TOKEN * max_new_tokens
    if len(text.text) > most:
        raise NoAnswer(
            f"an answer of {len(text.text):,} characters to a question for {max_new_tokens:,} tokens, which are "
            f"{most:,} at most: it does not keep to the length that is asked for"
        )
    return text, reply.used.prompt if reply.used else 0


def _times(tries: int) -> str:
    return "1 try" if tries == 1 else f"{tries} tries"


async def _all(reading: list) -> list:  # type: ignore[type-arg]
    """All results, or the first error once everything has ended."""
    found = await asyncio.gather(*reading, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found
