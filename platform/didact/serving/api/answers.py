"""Events of one or several replies -> what the API sends: a whole answer, or server-sent events."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from didact.serving.api.api_errors import ApiError
from didact.serving.api.openai_types import Usage
from didact.serving.engine.protocol import Delta, FinishReason, ReplicaLost
from didact.serving.replica.backend import Event, Refusal, RefusalKind, Started
from didact.serving.replica.token_words import TokenWord, WordedDelta

Progress = Started | Delta
Opened = AsyncGenerator[tuple[int, Progress], None]
_REFUSALS: dict[RefusalKind, tuple[int, str]] = {
    "busy": (429, "rate_limit_exceeded"),
    "too_long": (400, "context_length_exceeded"),
    "bad_prompt": (400, "invalid_prompt"),
    "no_tools": (400, "unsupported_parameter"),
    "no_grammars": (400, "unsupported_parameter"),
    "bad_grammar": (400, "invalid_grammar"),
    "bad_adapter": (400, "unsupported_adapter"),
    "registry": (503, "registry_unavailable"),
    "timeout": (504, "timeout"),
    "failed": (500, "generation_failed"),
    "stopped": (503, "replica_lost"),
    "died": (500, "engine_died"),
    "suspect": (400, "engine_died_before"),
}


class Tally:
    """Counts tokens over all choices. A prompt counts once, however many answers it gets."""

    def __init__(self, answers_per_prompt: int) -> None:
        self._per_prompt = answers_per_prompt
        self._prompts: dict[int, int] = {}
        self._completion = 0
        self.first_at: float | None = None
        """On the clock of `time.monotonic`: when the first token was here."""
        self.queued_seconds: float | None = None
        """How long the request waited in the engine, where the engine tells."""

    def clear(self) -> None:
        """Begin again, as another replica does."""
        self._prompts, self._completion = {}, 0

    def add(self, index: int, event: Progress) -> None:
        """Count one event of choice `index`."""
        if isinstance(event, Started):
            self._prompts[index // self._per_prompt] = event.num_prompt_tokens
        else:
            self._completion += len(event.token_ids)
            if self.first_at is None:
                self.first_at, self.queued_seconds = time.monotonic(), event.queued_seconds

    @property
    def usage(self) -> Usage:
        """The counts so far."""
        prompt = sum(self._prompts.values())
        return Usage(prompt_tokens=prompt, completion_tokens=self._completion, total_tokens=prompt + self._completion)


@dataclass(slots=True)
class Written:
    """One answer, as far as it has come."""

    text: str = ""
    reason: FinishReason | None = None
    stop_text: str | None = None
    """What ended it, where a stop text did."""
    started: Started | None = None
    token_ids: list[int] = field(default_factory=list)
    words: list[TokenWord] = field(default_factory=list)
    """Its tokens with their probabilities, where they are asked for; without the token that ended it."""

    def add(self, event: Progress) -> None:
        """Go on."""
        if isinstance(event, Started):
            self.started = event
            return
        self.text += event.text
        self.token_ids += event.token_ids
        self.words += words_of(event)
        if event.finish_reason is not None:
            self.reason, self.stop_text = event.finish_reason, event.stop_text


def words_of(delta: Delta) -> tuple[TokenWord, ...]:
    """The tokens of a piece with their probabilities, where they are asked for; without one that ended the answer."""
    if not isinstance(delta, WordedDelta):
        return ()
    ended_by_token = delta.finish_reason == "stop" and delta.stop_text is None
    return delta.words[:-1] if ended_by_token else delta.words


class Endpoint(Protocol):
    """How answers are written for the clients of one interface."""

    prompt_field: str
    """What the prompt is called in the body."""

    def whole(self, answers: Sequence[Written], usage: Usage) -> dict[str, Any]:
        """The answer to a request without `stream`."""
        ...

    def opening(self, started: Mapping[int, Started]) -> Iterator[str]:
        """The first events of a stream.

        Args:
            started: by choice, as far as they have begun.
        """
        ...

    def piece(self, index: int, delta: Delta) -> Iterator[str]:
        """The events for the next piece of choice `index`."""
        ...

    def failure(self, error: ApiError) -> str:
        """The last event of a stream that broke off: the status has long been sent."""
        ...

    def closing(self, usage: Usage) -> Iterator[str]:
        """The last events of a stream."""
        ...


async def streamed(
    endpoint: Endpoint,
    first: Sequence[tuple[int, Progress]],
    rest: Opened,
    tally: Tally,
    on_error: Callable[[Exception], ApiError],
) -> AsyncGenerator[str, None]:
    """Server-sent events.

    Args:
        endpoint: writes them.
        first: events that were read already.
        rest: those to come; closed at the end.
        tally: counts them.
        on_error: what an error is told as.
    """
    async with contextlib.aclosing(rest):
        try:
            for text in endpoint.opening({index: event for index, event in first if isinstance(event, Started)}):
                yield text
            async for index, event in chained(first, rest):
                tally.add(index, event)
                if isinstance(event, Delta):
                    for text in endpoint.piece(index, event):
                        yield text
        except Exception as error:  # noqa: BLE001 - logged and told to the client, who has an open stream
            yield endpoint.failure(on_error(error))
            return
    for text in endpoint.closing(tally.usage):
        yield text


def sse(values: Mapping[str, Any], name: str | None = None) -> str:
    """A server-sent event, with its name where the interface has names."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(values, ensure_ascii=False)}\n\n"


def refusal_error(refusal: Refusal, prompt_field: str) -> ApiError:
    """A backend's refusal as an HTTP error."""
    status, code = _REFUSALS[refusal.kind]
    params: dict[RefusalKind, str] = {
        "no_tools": "tools",
        # Its message begins with the field.
        **dict.fromkeys(("no_grammars", "bad_grammar"), refusal.message.partition(":")[0]),
        "too_long": prompt_field,
        "bad_prompt": prompt_field,
        "bad_adapter": "model",
    }
    return ApiError(
        status,
        refusal.message,
        code=code,
        param=params.get(refusal.kind),
        retry_after=1 if status in (429, 503) else None,
        final=refusal.kind in ("failed", "died", "suspect"),
    )


async def merged(replies: Sequence[AsyncGenerator[Event, None]], prompt_field: str) -> Opened:
    """Events of all replies as they come, with the reply's index. Closing it cancels them all.

    Raises:
        ApiError: one of them is a refusal; `prompt_field` is what the prompt is called in the body.
        ReplicaLost: see `Backend.ask`.
    """
    queue: asyncio.Queue[tuple[int, Event | Exception | None]] = asyncio.Queue()

    async def pump(index: int, reply: AsyncGenerator[Event, None]) -> None:
        try:
            async with contextlib.aclosing(reply) as events:
                async for event in events:
                    queue.put_nowait((index, event))
            queue.put_nowait((index, None))
        except Exception as error:  # noqa: BLE001 - raised again below, in the reader's task
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(pump(index, reply)) for index, reply in enumerate(replies)]
    try:
        running = len(tasks)
        while running:
            index, event = await queue.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Refusal) and event.kind == "stopped":
                raise ReplicaLost(event.message)
            if isinstance(event, Refusal):
                raise refusal_error(event, prompt_field)
            if event is None:
                running -= 1
            else:
                yield index, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def collect(events: Opened, num_choices: int, tally: Tally) -> list[Written]:
    """Read everything: the answer of each choice."""
    answers = [Written() for _ in range(num_choices)]
    async for index, event in events:
        tally.add(index, event)
        answers[index].add(event)
    return answers


async def first_events(events: Opened, num_choices: int) -> list[tuple[int, Progress]]:
    """Read until all requests are queued and one is answered, so that early errors still get their own status."""
    read: list[tuple[int, Progress]] = []
    started, text = 0, False
    while started < num_choices or not text:
        index, event = await anext(events)
        started += isinstance(event, Started)
        text = text or isinstance(event, Delta)
        read.append((index, event))
    return read


async def chained(first: Sequence[tuple[int, Progress]], rest: Opened) -> Opened:
    """What was read already, then what comes."""
    for item in first:
        yield item
    async for item in rest:
        yield item


async def whole_text(reply: AsyncGenerator[Event, None]) -> tuple[str, Refusal | None]:
    """The whole text of one reply, and why it ended early if it did."""
    text = ""
    async with contextlib.aclosing(reply) as events:
        async for event in events:
            if isinstance(event, Refusal):
                return text, event
            if isinstance(event, Delta):
                text += event.text
    return text, None
