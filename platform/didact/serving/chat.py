"""Chat in the terminal, with a server or with a model in this process.

you type -> Talk.answer -> text as it comes
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Protocol

import httpx
from typing_extensions import override

from didact.datasets.conversation import Message
from didact.errors import DidactError, RegistryError
from didact.serving.engine.protocol import AdapterRef, Delta, Sampling
from didact.serving.replica.backend import Ask, Event, Refusal
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from didact.spec import ServeSpec

_MAX_NEW_TOKENS, _TIMEOUT_SECONDS = ServeSpec().max_new_tokens, ServeSpec().request_timeout_seconds
_Run = Callable[[Coroutine[Any, Any, Event | None]], Event | None]
_HELP = "/model NAME changes the model, /models lists them, /reset forgets the conversation, /quit ends."


class ChatError(DidactError, RuntimeError):
    """The model did not answer; the message says why."""


class Talk(Protocol):
    """Someone to chat with."""

    num_tokens: int
    """Of the last answer, as far as they are known."""

    def models(self) -> list[str]:
        """Names that `answer` takes."""
        ...

    def answer(self, model: str, messages: list[Message]) -> Iterator[str]:
        """The next turn, piece by piece.

        Raises:
            ChatError: no answer.
        """
        ...


class HttpTalk(Talk):
    """Chats with an OpenAI-compatible server."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        temperature: float = 0.7,
        max_new_tokens: int = _MAX_NEW_TOKENS,
    ) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        base = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(base_url=base, headers=headers, timeout=httpx.Timeout(_TIMEOUT_SECONDS, connect=10))
        self._options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_new_tokens, "stream": True}
        self._options["stream_options"] = {"include_usage": True}
        self.num_tokens = 0

    @override
    def models(self) -> list[str]:
        try:
            answer = self._client.get("/v1/models")
        except httpx.HTTPError as error:
            raise ChatError(f"{self._client.base_url} cannot be reached: {error}") from error
        _check(answer)
        return [card["id"] for card in answer.json()["data"]]

    @override
    def answer(self, model: str, messages: list[Message]) -> Iterator[str]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        body = {"model": model, "messages": turns, **self._options}
        self.num_tokens = 0
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.is_error:
                    answer.read()
                _check(answer)
                for line in _lines(answer.iter_text()):
                    event = _event_of(line)
                    self.num_tokens = (event.get("usage") or {}).get("completion_tokens") or self.num_tokens
                    yield _text_of(event)
        except httpx.HTTPError as error:
            raise ChatError(f"the server did not answer: {error}") from error


class LocalTalk(Talk):
    """Chats with a model in this process."""

    def __init__(
        self,
        worker: Worker,
        catalog: Catalog,
        folders: Mapping[str, AdapterRef] | None = None,
        *,
        temperature: float = 0.7,
        max_new_tokens: int = _MAX_NEW_TOKENS,
    ) -> None:
        self._worker = worker
        self._catalog = catalog
        self._folders = dict(folders or {})
        self._sampling = Sampling(temperature=temperature)
        self._max_new_tokens = max_new_tokens
        self.num_tokens = 0

    @override
    def models(self) -> list[str]:
        self._catalog.refresh()
        return [*self._folders, self._catalog.base_name, *(offer.version.name for offer in self._catalog.offers())]

    @override
    def answer(self, model: str, messages: list[Message]) -> Iterator[str]:
        try:
            adapter = self._folders.get(model) or self._catalog.resolve(model).version
        except RegistryError as error:
            raise ChatError(str(error)) from error
        ask = Ask(uuid.uuid4().hex, tuple(messages), adapter, self._max_new_tokens, 3600, self._sampling)
        with asyncio.Runner() as runner:
            self.num_tokens = 0
            yield from answer_pieces(self._worker, ask, runner.run, self._count)

    def _count(self, num_tokens: int) -> None:
        self.num_tokens += num_tokens


def answer_pieces(worker: Worker, ask: Ask, run: _Run, count: Callable[[int], None] = lambda _: None) -> Iterator[str]:
    """The text of an answer as it comes.

    Args:
        worker: who is asked.
        ask: the question.
        run: runs a coroutine to its end, always in the same event loop.
        count: is told of tokens as they come.

    Raises:
        ChatError: no answer.
    """
    events = worker.ask(ask)
    try:
        while (event := run(_next(events))) is not None:
            if isinstance(event, Refusal):
                raise ChatError(event.message)
            if isinstance(event, Delta):
                count(len(event.token_ids))
                yield event.text
    finally:
        run(_closed(events))


def chat_loop(
    talk: Talk,
    model: str | None = None,
    *,
    read: Callable[[str], str] = input,
    write: Callable[[str], None] = lambda text: print(text, end="", flush=True),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Read turns until `/quit` or the end of input, and print answers as they come, with their speed below them.

    Args:
        talk: `HttpTalk` or `LocalTalk`.
        model: the first model; default the first that `talk` lists.
        read: prompts for and returns a line; EOFError or KeyboardInterrupt ends the chat.
        write: prints a piece of text as it is.
        clock: in seconds.
    """
    model = model or talk.models()[0]
    history: list[Message] = []
    write(f"Chatting with {model}. {_HELP}\n")
    while True:
        try:
            line = read("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            write("\n")
            return
        command, _, argument = line.partition(" ")
        if command == "/quit":
            return
        if command == "/reset":
            history.clear()
            write("The conversation is forgotten.\n")
        elif command == "/models":
            write("\n".join(talk.models()) + "\n")
        elif command == "/model" and argument.strip():
            model = argument.strip()
            write(f"Now chatting with {model}.\n")
        elif line.startswith("/"):
            write(_HELP + "\n")
        elif line:
            _turn(talk, model, history, line, write, clock)


def _turn(
    talk: Talk,
    model: str,
    history: list[Message],
    line: str,
    write: Callable[[str], None],
    clock: Callable[[], float],
) -> None:
    """One question and its answer; a turn that fails leaves no trace in the conversation."""
    history.append(Message("user", line))
    answer, started = "", clock()
    try:
        for text in talk.answer(model, list(history)):
            answer += text
            write(text)
    except ChatError as error:
        write(f"[{error}]\n")
        history.pop()
        return
    except KeyboardInterrupt:
        write(" [stopped]")
    write("\n")
    if talk.num_tokens and (seconds := clock() - started) > 0:
        write(f"({talk.num_tokens} tokens, {talk.num_tokens / seconds:.1f} tokens/s)\n")
    history.append(Message("assistant", answer))


async def _closed(events: AsyncGenerator[Event, None]) -> None:
    await events.aclose()


async def _next(events: AsyncGenerator[Event, None]) -> Event | None:
    return await anext(events, None)


def _check(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text[:200]
    hint = "; the first key in DIDACT_API_KEYS is sent" if answer.status_code == HTTPStatus.UNAUTHORIZED else ""
    raise ChatError(f"{message} (HTTP {answer.status_code}){hint}")


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of an event stream, which line feeds alone end: answers may hold U+2028 and its like as they are."""
    held = ""
    for piece in pieces:
        *whole, held = (held + piece).split("\n")
        yield from whole
    yield held


def _event_of(line: str) -> dict[str, Any]:
    """What one line of a server-sent event stream holds; nothing for other lines."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return {}
    event: dict[str, Any] = json.loads(data)
    if "error" in event:
        raise ChatError(event["error"]["message"])
    return event


def _text_of(event: Mapping[str, Any]) -> str:
    """The text of an event; thoughts are text as well."""
    deltas = (choice["delta"] for choice in event.get("choices", ()))
    return "".join((delta.get("reasoning_content") or "") + (delta.get("content") or "") for delta in deltas)
