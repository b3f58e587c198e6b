"""The embedded engine: continuous batching over a transformers model, on one thread.

    generate() -> waiting rows -> [step thread: read a piece of the prompts -> step each batch] -> deltas

Rows of the base and of adapters that rows can have for themselves are one running batch; an adapter that needs the
whole model has another. New rows join after their prompts were read, a piece a round. The thread gives every batch a
few steps in turn, so that neither an adapter, a long prompt nor a long answer holds up the others.

Nothing that a row does ends the thread; only a base that cannot read a single token any more does.
"""

import contextlib
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from didact.models import AdapterHost
from didact.serving.engine.drafts import PromptLookup
from didact.serving.engine.grammar.grammar import Grammar, GrammarError
from didact.serving.engine.grammar.matcher import Grammars, check_installed, is_installed
from didact.serving.engine.memory.cache_room import CacheRoom
from didact.serving.engine.memory.row_attention import use_row_attention
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
)
from didact.serving.engine.rounds import Rounds
from didact.serving.engine.row import BatchRow
from didact.spec import ServeSpec

T = TypeVar("T")
_DEFAULTS = ServeSpec()
_LOOK_ROUND = 0.05
"""Seconds between two looks at who still waits, while nothing can be computed."""

_PREFIX_CACHE_BYTES = 256 * 2**20
_PROMPT_TOKENS = 4096
_PROMPT_TOKENS_PER_ROUND = {"cpu": 256}
"""About what a device reads at its full speed and in under a second."""


class EmbeddedEngine(Engine):
    """An `Engine` over one base model.

    The model is only touched by the step thread. Call `close` when done.
    """

    def __init__(
        self,
        host: AdapterHost,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_adapters: int = _DEFAULTS.max_adapters,
        max_batch_size: int = _DEFAULTS.max_batch_size,
        max_waiting: int = _DEFAULTS.max_waiting,
        prompt_tokens_per_round: int | None = None,
        prefix_cache_bytes: int = _PREFIX_CACHE_BYTES,
        cache_bytes: int | None = None,
        record_steps: bool | None = None,
        prompt_lookup_tokens: int = 0,
    ) -> None:
        """Start the thread.

        Args:
            host: the base and the adapters on it.
            tokenizer: makes text of tokens.
            max_adapters: adapters in memory.
            max_batch_size: rows in generation.
            max_waiting: rows that may wait.
            prompt_tokens_per_round: tokens of prompts that are read at most before running rows have their next turn
                (see `ReadingPace`); also how much of a prompt is read before the engine sees that its client left.
            prefix_cache_bytes: memory for keys and values of prompts, for later ones that begin alike; 0 for none.
            cache_bytes: memory for keys and values of rows in generation, see `CacheRoom`.
            record_steps: whether decoding steps are recorded and replayed; None: on a GPU, where the base allows it.
            prompt_lookup_tokens: tokens of a row that are guessed from its text and checked in one pass; 0 for none.
                Recorded steps guess nothing.
        """
        self._base = host.base
        use_row_attention(self._base)
        self._tokenizer = tokenizer
        self._changed = threading.Condition()
        """Guards the waiting rows and the flags; notified when the step thread has something to do."""
        self._max_waiting, self._max_running, self._max_adapters = max_waiting, max_batch_size, max_adapters
        device = self._base.device.type
        self._rounds = Rounds(
            host,
            self._changed,
            max_adapters=max_adapters,
            max_batch_size=max_batch_size,
            prompt_tokens=prompt_tokens_per_round or _PROMPT_TOKENS_PER_ROUND.get(device, _PROMPT_TOKENS),
            known_bytes=prefix_cache_bytes,
            room=CacheRoom(self._base, self.context_length, cache_bytes),
            record_steps=record_steps,
            lookup_tokens=prompt_lookup_tokens,
        )
        self._grammars = Grammars(tokenizer, self.vocabulary_size)
        self._num_reading = 0
        """Requests whose grammar is being compiled."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    @property
    @override
    def context_length(self) -> int:
        return int(getattr(self._base.config.get_text_config(), "max_position_embeddings", 2**20))

    @property
    @override
    def vocabulary_size(self) -> int:
        return int(self._base.get_input_embeddings().weight.shape[0])

    @property
    @override
    def takes_grammars(self) -> bool:
        return is_installed()

    @property
    def records_steps(self) -> bool:
        """Whether decoding steps are recorded and replayed."""
        graphs = self._rounds.graphs
        return graphs is not None and graphs.on

    @override
    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Call on a running event loop."""
        length = len(request.prompt_ids)
        if not 0 < length < self.context_length:
            raise PromptTooLong(
                f"This model's maximum context length is {self.context_length} tokens, and at least one is needed for "
                f"the answer; the prompt has {length} tokens."
            )
        if (reason := self._rounds.room.why_never(length, request.max_new_tokens)) is not None:
            raise PromptTooLong(reason)
        with self._changed:
            self._check_working()
            # Rows that the next round begins do not wait: those that have a place among the running.
            free = max(0, self._max_running - sum(1 for _ in self._rounds.begun()))
            num_waiting = len(self._rounds.waiting) + self._num_reading - free
            if num_waiting >= self._max_waiting:
                raise EngineBusy(f"{num_waiting} requests are waiting already; try again shortly")
            if request.grammar is not None:
                return self._held(request, request.grammar)
            return self._queued(self._row(request))

    def _row(self, request: GenerationRequest) -> BatchRow:
        row = BatchRow(request, self.context_length, self._tokenizer, self._base.device)
        if self._rounds.drafting.most_tokens:
            row.lookup = PromptLookup(request.prompt_ids)
        return row

    def _queued(self, row: BatchRow) -> AsyncGenerator[Delta, None]:
        """Put a row behind those that wait; asked under the lock."""
        self._rounds.waiting.add(row)
        self._changed.notify()
        return row.read(on_close=self.cancel)

    def _held(self, request: GenerationRequest, grammar: Grammar) -> AsyncGenerator[Delta, None]:
        """Have the grammar compiled, then queue the request."""
        check_installed(grammar)
        # Whatever else ends the answer, the grammar must be able to.
        ends = (*request.stop_token_ids, int(self._tokenizer.eos_token_id))
        texts = self._tokenizer.convert_ids_to_tokens(list(ends))
        if (held := next((text for text in texts if text is not None and grammar.holds(text)), None)) is not None:
            raise GrammarError(f"{grammar.field}: holds {held}, the text of a token that ends answers")
        row = self._row(replace(request, stop_token_ids=ends))

        async def pieces() -> AsyncGenerator[Delta, None]:
            with self._changed:
                self._num_reading += 1
            try:
                row.constraint = await self._grammars.constraint(grammar)
            finally:
                with self._changed:
                    self._num_reading -= 1
            with self._changed:
                self._check_working()
                queued = self._queued(row)
            async with contextlib.aclosing(queued):
                async for delta in queued:
                    yield delta

        return pieces()

    @override
    def cancel(self, request_id: str) -> None:
        with self._changed:
            for row in self._rounds.rows():
                if row.request.request_id == request_id:
                    row.cancelled = True
            self._changed.notify()

    @override
    def preload(self, adapter: AdapterRef) -> "Future[None]":
        return self._ask(adapter, None)

    def borrow(self, adapter: AdapterRef | None, function: Callable[[Any], T]) -> "Future[T]":
        """Call `function` with the model on the step thread, between two rounds, one call a round.

        Nothing is generated while it runs, so it should be short: one batch of an evaluation, say.

        Args:
            adapter: the version that is in force meanwhile, loaded where needed; None for the bare base.
            function: gets the model to call, and leaves it as it was.

        Returns:
            What the function returns or raises; AdapterError when the version cannot be used.

        Raises:
            EngineStopped: at the call.
        """
        return self._ask(adapter, function)

    def _ask(self, adapter: AdapterRef | None, function: Callable[[Any], Any] | None) -> "Future[Any]":
        with self._changed:
            self._check_working()
            future = self._rounds.errands.add(adapter, function)
            self._changed.notify()
        return future

    @override
    def stats(self) -> EngineStats:
        with self._changed:
            num_running = sum(map(_counts, self._rounds.begun()))
            usage = self._rounds.cache_usage
            return EngineStats(
                num_running=num_running,
                num_waiting=sum(map(_counts, self._rounds.waiting)),
                adapters=self._rounds.pool.version_ids,
                prompt_tokens=self._rounds.prompt_tokens,
                cached_prompt_tokens=self._rounds.cached_tokens,
                generated_tokens=self._rounds.generated_tokens,
                adapter_loads=self._rounds.pool.loads,
                adapter_evictions=self._rounds.pool.evictions,
                num_drafts=self._rounds.drafting.num_drafts,
                drafted_tokens=self._rounds.drafting.num_drafted,
                right_drafted_tokens=self._rounds.drafting.num_right,
                max_running=self._max_running,
                max_adapters=self._max_adapters,
                cache_usage=num_running / self._max_running if usage is None else min(usage, 1.0),
            )

    @override
    def health(self) -> None:
        with self._changed:
            self._check_working()

    @override
    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._rounds.pool.close()
        self._grammars.close()

    def _check_working(self) -> None:
        if self._closing or self._rounds.failure is not None:
            reason = "it was closed" if self._rounds.failure is None else f"{type(self._rounds.failure).__name__}"
            raise EngineStopped(f"the engine has stopped ({reason})")

    def _run(self) -> None:
        rounds = self._rounds
        while rounds.failure is None and self._wait_for_work():
            rounds.run_one()
        if rounds.failure is None:
            rounds.fail_all(GenerationFailed("the engine was closed before the answer was finished"))
        else:  # told by `health`, so that this engine is replaced
            rounds.fail_all(EngineDied("the engine ended before the answer was finished"))

    def _wait_for_work(self) -> bool:
        rounds = self._rounds
        with self._changed:
            idle = not (rounds.has_begun or rounds.is_asked)
            while not (self._closing or rounds.has_begun or rounds.any_ready()):
                asked = rounds.is_asked
                self._changed.wait(_LOOK_ROUND if asked else None)
                if asked:  # adapters are being read; those who wait for them may leave meanwhile
                    break
            while idle and not self._closing and 0 < len(rounds.waiting) < self._max_running:
                before = len(rounds.waiting)
                self._changed.wait(rounds.pace.together)
                idle = len(rounds.waiting) > before
            return not self._closing


def _counts(row: BatchRow) -> bool:
    """Whether somebody still waits for the row."""
    return not (row.done or row.cancelled)
