"""The engine `vllm`: vLLM's AsyncLLM in a process of its own, behind the same protocol as the embedded engine.

    generate() -> adapter in vLLM's memory -> [vLLM's process] -> tokens -> AnswerRow -> deltas

vLLM gets tokens and gives tokens. Text, stop texts and the end of an answer are made here by the code that the embedded
engine has, so the same tokens are the same answer.
"""

import itertools
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from didact.errors import AdapterError
from didact.logs import get_logger
from didact.serving.engine.grammar.grammar import Grammar, GrammarError, GrammarsMissing
from didact.serving.engine.on_vllm.served import WAY_OUT, check_served
from didact.serving.engine.on_vllm.vllm_adapters import VllmAdapters
from didact.serving.engine.on_vllm.vllm_link import VllmLink
from didact.serving.engine.on_vllm.vllm_parameters import bias_of, vllm_parameters
from didact.serving.engine.protocol import (
    AdapterRef,
    Delta,
    Engine,
    EngineBusy,
    EngineDied,
    EngineStats,
    EngineStopped,
    GenerationFailed,
    GenerationRequest,
    PromptTooLong,
    TokenLogprob,
)
from didact.serving.engine.row import AnswerRow

_log = get_logger(__name__)
_BASE = "the base"


@dataclass(slots=True)
class _Sent:
    """A request and where it is."""

    row: AnswerRow
    parameters: dict[str, Any]
    scores: "Future[list[TokenLogprob]] | None" = None
    """Gets the logarithms of the prompt, where they are asked for."""
    version_id: str | None = None
    """The version that is held for it."""
    given: float = 0.0
    """When vLLM got it, on the clock of `time.monotonic`."""


class VllmEngine(Engine):
    """An `Engine` over vLLM. Call `close` when done."""

    def __init__(
        self,
        link: VllmLink,
        tokenizer: PreTrainedTokenizerBase,
        base_fingerprint: str,
        *,
        max_lora_rank: int,
        max_adapters: int,
        max_batch_size: int,
        max_waiting: int,
    ) -> None:
        """Serve a vLLM that has started; it was told `engine_settings` of the same limits."""
        self._link, self._tokenizer = link, tokenizer
        self._context_length = int(link.facts["context_length"])
        self._vocabulary_size = int(link.facts["vocabulary_size"])
        self._max_adapters, self._max_batch_size, self._max_waiting = max_adapters, max_batch_size, max_waiting
        self._lock = threading.Lock()
        """Guards the requests and the figures."""
        self._numbers = itertools.count(1)
        self._sent: dict[int, _Sent] = {}
        self._calls: dict[int, Callable[[Exception | None], None]] = {}
        self._figures: tuple[int, int, float] = (0, 0, 0.0)
        self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0
        self._stopped: str | None = None
        self._closing = False
        self.base_number: int | None = None
        """Number of the adapter that changes nothing, where rows of the base cannot do without."""
        self.adapters = VllmAdapters(
            max_adapters,
            lambda adapter: check_served(adapter.folder, base_fingerprint, max_lora_rank),
            self.load,
            self.unload,
        )
        link.start(self._take, self._expire, self._end)

    @property
    @override
    def context_length(self) -> int:
        return self._context_length

    @property
    @override
    def vocabulary_size(self) -> int:
        return self._vocabulary_size

    @property
    @override
    def takes_grammars(self) -> bool:
        return bool(self._link.facts.get("grammars"))

    @override
    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Call on a running event loop."""
        number, row = self._enter(request)
        self._send_with(number, request)
        return row.read(on_close=lambda _: self._leave(number))

    def probe(self, request: GenerationRequest, loaded: int | None) -> AsyncGenerator[Delta, None]:
        """`generate` with an adapter that was loaded under a number, and with nothing from the prefix cache."""
        number, row = self._enter(request)
        self._begin(number, self.base_number if loaded is None else loaded, f"probe {number}")
        return row.read(on_close=lambda _: self._leave(number))

    async def prompt_logprobs(self, adapter: AdapterRef | None, ids: Sequence[int], num_top: int) -> list[TokenLogprob]:
        """The logarithms of all tokens of a prompt but the first, with those of `num_top` likeliest ones.

        Raises:
            AdapterError, EngineBusy, EngineStopped, PromptTooLong: see `generate`.
        """
        if len(ids) < 2:
            return []
        request = GenerationRequest("prompt", tuple(ids), adapter, 1)
        found: Future[list[TokenLogprob]] = Future()
        number, row = self._enter(request, {"prompt_logprobs": num_top}, found)
        self._send_with(number, request)
        async for _ in row.read(on_close=lambda _: self._leave(number)):
            pass
        if not found.done():
            raise GenerationFailed("vLLM did not tell of the prompt's tokens")
        return found.result()

    def _send_with(self, number: int, request: GenerationRequest) -> None:
        """Send an entered request, with its adapter once that is in memory."""
        if request.adapter is None:
            self._begin(number, self.base_number, _BASE)
        else:
            version_id = request.adapter.version_id
            self.adapters.acquire(request.adapter, lambda found: self._placed(number, version_id, found))

    def _enter(
        self,
        request: GenerationRequest,
        more: Mapping[str, Any] | None = None,
        scores: "Future[list[TokenLogprob]] | None" = None,
    ) -> tuple[int, AnswerRow]:
        length = len(request.prompt_ids)
        if not 0 < length < self._context_length:
            raise PromptTooLong(
                f"This model's maximum context length is {self._context_length} tokens, and at least one is needed for "
                f"the answer; the prompt has {length} tokens."
            )
        if request.grammar is not None:
            request = self._held(request, request.grammar)
        parameters = vllm_parameters(request, min(request.max_new_tokens, self._context_length - length))
        with self._lock:
            self._check_working()
            waiting = len(self._sent) - self._max_batch_size
            if waiting >= self._max_waiting:
                raise EngineBusy(f"{waiting} requests are waiting already; try again shortly")
            row = AnswerRow(request, self._context_length, self._tokenizer)
            number = next(self._numbers)
            self._sent[number] = _Sent(row, {**parameters, **(more or {})}, scores)
        return number, row

    def _held(self, request: GenerationRequest, grammar: Grammar) -> GenerationRequest:
        """The request with the token that ends what a grammar is done with."""
        if not self.takes_grammars:
            raise GrammarsMissing(f"{grammar.field}: this vLLM cannot hold answers to a form; install llguidance there")
        return replace(request, stop_token_ids=(*request.stop_token_ids, int(self._tokenizer.eos_token_id)))

    @override
    def cancel(self, request_id: str) -> None:
        with self._lock:
            numbers = [number for number, sent in self._sent.items() if sent.row.request.request_id == request_id]
        for number in numbers:
            self._leave(number)

    @override
    def preload(self, adapter: AdapterRef) -> "Future[None]":
        future: Future[None] = Future()
        with self._lock:
            self._check_working()

        def placed(found: int | Exception) -> None:
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                self.adapters.release(adapter.version_id)
                future.set_result(None)

        self.adapters.acquire(adapter, placed)
        return future

    @override
    def stats(self) -> EngineStats:
        # An adapter that arrives takes this lock with that of the adapters in hand, so never the other way round.
        adapters = self.adapters.version_ids
        with self._lock:
            in_flight = len(self._sent)
            running = min(self._figures[0], in_flight)
            return EngineStats(
                num_running=running,
                num_waiting=in_flight - running,
                adapters=adapters,
                prompt_tokens=self._prompt_tokens,
                cached_prompt_tokens=self._cached_tokens,
                generated_tokens=self._generated_tokens,
                adapter_loads=self.adapters.loads,
                adapter_evictions=self.adapters.evictions,
                max_running=self._max_batch_size,
                max_adapters=self._max_adapters,
                cache_usage=self._figures[2],
            )

    @override
    def health(self) -> None:
        with self._lock:
            self._check_working()

    @override
    def close(self) -> None:
        with self._lock:
            self._closing = True
        self._link.close()

    def load(self, number: int, adapter: AdapterRef, done: Callable[[Exception | None], None]) -> None:
        """Have vLLM load an adapter under a number. `done` gets None, or an AdapterError."""

        def told(error: Exception | None) -> None:
            if isinstance(error, GenerationFailed) and not isinstance(error, EngineStopped):
                error = AdapterError(f"vLLM does not take adapter {adapter.version_id}: {error}. {WAY_OUT}")
            done(error)

        self._call("load", told, {"id": number, "name": str(number), "path": str(adapter.folder)})

    def unload(self, number: int) -> None:
        """Have vLLM forget an adapter."""
        self._call("unload", lambda error: None, {"id": number})

    def _call(self, do: str, told: Callable[[Exception | None], None], adapter: dict[str, Any]) -> None:
        with self._lock:
            stopped = self._stopped
            call = next(self._numbers)
            if stopped is None:
                self._calls[call] = told
        if stopped is not None:
            return told(EngineStopped(f"the engine has stopped ({stopped})"))
        return self._link.send(do=do, id=call, adapter=adapter)

    def _placed(self, number: int, version_id: str, found: int | Exception) -> None:
        """The version of a request is in memory, or cannot be."""
        with self._lock:
            sent = self._sent.get(number)
            if sent is not None and not isinstance(found, Exception):
                sent.version_id = version_id
        if isinstance(found, Exception):
            if sent is not None:
                sent.row.fail(found)
                self._forget(number)
        elif sent is None:  # its client left meanwhile
            self.adapters.release(version_id)
        else:
            self._begin(number, found, version_id)

    def _begin(self, number: int, adapter: int | None, salt: str) -> None:
        with self._lock:
            sent = self._sent.get(number)
        if sent is None:
            return
        sent.given = time.monotonic()
        request = sent.row.request
        path = str(request.adapter.folder) if request.adapter else "/"  # in memory already; it is not read
        self._link.send(
            do="generate",
            id=number,
            prompt=request.prompt_ids,
            params=sent.parameters,
            bias=bias_of(request.sampling),
            priority=request.priority,
            grammar=None if request.grammar is None else request.grammar.text,
            # The prefix cache of one version is never another's, whatever vLLM takes for the same adapter.
            salt=salt,
            adapter=None if adapter is None else {"id": adapter, "name": str(adapter), "path": path},
        )

    def _take(self, message: Mapping[str, Any]) -> None:
        """A message of vLLM's process, on the link's thread."""
        if figures := message.get("stats"):
            self._figures = (int(figures[0]), int(figures[1]), float(figures[2]))
            return
        number = message["id"]
        with self._lock:
            call = self._calls.pop(number, None)
            sent = self._sent.get(number)
        if call is not None:
            call(GenerationFailed(message["error"]) if "error" in message else None)
        elif sent is not None and "error" in message:
            _log.warning("vLLM refused a request: %s", message["error"])
            sent.row.fail(_refused(sent.row, message["error"]))
            self._forget(number)
        elif sent is not None:
            self._extend(number, sent, message)

    def _extend(self, number: int, sent: _Sent, message: Mapping[str, Any]) -> None:
        row = sent.row
        with self._lock:
            if not row.answer:
                row.begun = sent.given + message["queued"]
                self._prompt_tokens += len(row.request.prompt_ids) - message["cached"]
                self._cached_tokens += message["cached"]
            self._generated_tokens += len(message["tokens"])
        if sent.scores is not None and message["prompt"]:
            ids, wanted = row.request.prompt_ids[1:], sent.parameters["prompt_logprobs"]
            found = [_logprob(token, each, wanted) for token, each in zip(ids, message["prompt"], strict=True)]
            sent.scores.set_result(found)
        told = message["logprobs"] or [None] * len(message["tokens"])
        for token, each in zip(message["tokens"], told, strict=True):
            if not row.done:
                row.take(token, () if each is None else (_logprob(token, each, row.request.logprobs or 0),))
        if message["end"] and not row.done:
            row.fail(GenerationFailed(f"vLLM ended the answer early ({message['end']})"))
        if row.done:
            self._forget(number, abort=not message["end"])

    def _expire(self) -> None:
        with self._lock:
            sent = list(self._sent.items())
        for number, each in sent:
            each.row.expire()
            if each.row.done:
                self._leave(number)

    def _leave(self, number: int) -> None:
        """Nobody waits for the request any more."""
        self._forget(number, abort=True)

    def _forget(self, number: int, *, abort: bool = False) -> None:
        with self._lock:
            sent = self._sent.pop(number, None)
        if sent is None:
            return
        if abort:
            self._link.send(do="abort", id=number)
        if sent.version_id is not None:
            self.adapters.release(sent.version_id)

    def _check_working(self) -> None:
        if self._closing or self._stopped is not None:
            raise EngineStopped(f"the engine has stopped ({self._stopped or 'it was closed'})")

    def _end(self, reason: str) -> None:
        """vLLM is gone, on the link's thread."""
        with self._lock:
            self._stopped = "it was closed" if self._closing else reason
            sent, self._sent = list(self._sent.values()), {}
            calls, self._calls = list(self._calls.values()), {}
        stopped = EngineStopped(f"the engine has stopped ({self._stopped})")
        self.adapters.close(stopped)
        for call in calls:
            call(stopped)
        for each in sent:
            if not each.row.done:
                words = "the engine was closed" if self._closing else "the engine ended"
                kind = GenerationFailed if self._closing else EngineDied
                each.row.fail(kind(f"{words} before the answer was finished"))


def _refused(row: AnswerRow, reason: str) -> Exception:
    """Why vLLM ended a request: a grammar, where it has one and nothing was answered yet."""
    grammar, (kind, _, words) = row.request.grammar, reason.partition(": ")
    if grammar is not None and not row.answer and kind in ("ValueError", "VLLMValidationError"):
        return GrammarError(f"{grammar.field}: {words}")
    return GenerationFailed(f"vLLM could not answer ({reason})")


def _logprob(token: int, found: list[Any], wanted: int) -> TokenLogprob:
    chosen, ranked = found
    return TokenLogprob(token, chosen, tuple((other, value) for other, value in ranked[:wanted]))
