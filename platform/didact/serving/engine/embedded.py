"""The embedded engine: continuous batching over a transformers model, on one thread.

    generate() -> waiting rows -> [step thread: read a piece of the prompts -> step each batch] -> deltas

Each adapter version in use has one running batch; new rows join it after their prompts were read, a piece a round. The
thread gives every batch a few steps in turn, so that neither an adapter, a long prompt nor a long answer holds up the
others.

A batch that fails is cut in halves, which are tried again apart, until the guilty row stands alone and fails.
Nothing that a row does ends the thread; only a base that cannot read a single token any more does.
"""

import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from didact.errors import AdapterError
from didact.logs import get_logger
from didact.models import AdapterHost
from didact.serving.engine.adapter_pool import AdapterPool
from didact.serving.engine.batch import DecodingBatch, num_trained, trained_positions
from didact.serving.engine.errands import Errands
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
from didact.serving.engine.row import BatchRow
from didact.spec import ServeSpec

T = TypeVar("T")
_log = get_logger(__name__)
_DEFAULTS = ServeSpec()
_STEPS_PER_TURN = 4
"""Tokens per row before the next batch has its turn: putting another adapter in force takes about as long as a step."""

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
    ) -> None:
        """Start the thread.

        Args:
            host: the base and the adapters on it.
            tokenizer: makes text of tokens.
            max_adapters: adapters in memory.
            max_batch_size: rows in generation.
            max_waiting: rows that may wait.
            prompt_tokens_per_round: tokens of prompts that are read before running rows have their next turn; also
                how much of a prompt is read before the engine sees that its client left.
        """
        self._base = host.base
        self._tokenizer = tokenizer
        self._pool = AdapterPool(host, max_adapters)
        self._max_batch_size = max_batch_size
        self._max_waiting = max_waiting
        device = self._base.device.type
        self._prompt_tokens_per_round = prompt_tokens_per_round or _PROMPT_TOKENS_PER_ROUND.get(device, _PROMPT_TOKENS)
        self._waiting: deque[BatchRow] = deque()
        self._opening: DecodingBatch | None = None
        """Rows whose prompts are being read."""
        self._batches: list[DecodingBatch] = []
        self._errands = Errands(self._pool)
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._closing = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        """Guards the waiting rows and the flags; notified when the step thread has something to do."""
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    @property
    def context_length(self) -> int:
        """Positions of the base: prompt and answer together."""
        return int(getattr(self._base.config.get_text_config(), "max_position_embeddings", 2**20))

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        return int(self._base.get_input_embeddings().weight.shape[0])

    @override
    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Call on a running event loop."""
        length = len(request.prompt_ids)
        if not 0 < length < self.context_length:
            raise PromptTooLong(
                f"This model's maximum context length is {self.context_length} tokens, and at least one is needed for "
                f"the answer; the prompt has {length} tokens."
            )
        with self._changed:
            self._check_working()
            if len(self._waiting) >= self._max_waiting:
                raise EngineBusy(f"{len(self._waiting)} requests are waiting already; try again shortly")
            row = BatchRow(request, self.context_length, self._tokenizer, self._base.device)
            self._waiting.append(row)
            self._changed.notify()
        return row.read(on_close=self.cancel)

    @override
    def cancel(self, request_id: str) -> None:
        with self._changed:
            for row in self._rows():
                if row.request.request_id == request_id:
                    row.cancelled = True
            self._changed.notify()

    def preload(self, adapter: AdapterRef) -> "Future[None]":
        """Have a version in memory before its first request, unless running requests hold every place.

        The future raises AdapterError when the version cannot be used.
        """
        return self._ask(adapter, None)

    def borrow(self, adapter: AdapterRef | None, function: Callable[[Any], T]) -> "Future[T]":
        """Call `function` with the model on the step thread, between two rounds, one call a round.

        Nothing is generated while it runs, so it should be short: one batch of an evaluation, say.

        Args:
            adapter: the version that is in force meanwhile, loaded where needed; None for the bare base.
            function: gets the model as `AdapterHost.active` yields it, and leaves it as it was.

        Returns:
            What the function returns or raises; AdapterError when the version cannot be used.

        Raises:
            EngineStopped: at the call.
        """
        return self._ask(adapter, function)

    def _ask(self, adapter: AdapterRef | None, function: Callable[[Any], Any] | None) -> "Future[Any]":
        with self._changed:
            self._check_working()
            future = self._errands.add(adapter, function)
            self._changed.notify()
        return future

    @override
    def stats(self) -> EngineStats:
        with self._changed:
            return EngineStats(
                num_running=sum(_counts(row) for batch in self._all_batches() for row in batch.rows),
                num_waiting=sum(map(_counts, self._waiting)),
                adapters=self._pool.version_ids,
                prompt_tokens=self._prompt_tokens,
                generated_tokens=self._generated_tokens,
                adapter_loads=self._pool.loads,
                adapter_evictions=self._pool.evictions,
            )

    @override
    def health(self) -> None:
        with self._changed:
            self._check_working()

    def close(self) -> None:
        """Stop the thread; unfinished requests fail."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _check_working(self) -> None:
        if self._closing or self._failure is not None:
            reason = "it was closed" if self._failure is None else f"{type(self._failure).__name__}"
            raise EngineStopped(f"the engine has stopped ({reason})")

    def _run(self) -> None:
        while self._failure is None and self._wait_for_work():
            try:
                self._sweep()
                self._errands.run(self._pinned())
                self._read_prompts()
                for batch in list(self._batches):
                    self._take_turn(batch)
            except Exception as error:  # noqa: BLE001 - no row is known to be the cause, so all end, and others can come
                _log.exception("a round of generation failed")
                self._fail_all(GenerationFailed(f"a round of generation failed ({type(error).__name__})"))
                self._failure = self._broken()
        if self._failure is None:
            self._fail_all(GenerationFailed("the engine was closed before the answer was finished"))
        else:  # told by `health`, so that this engine is replaced
            self._fail_all(EngineDied("the engine ended before the answer was finished"))

    def _broken(self) -> Exception | None:
        """Why the bare base cannot read a single token any more, as after a fault of its GPU; None where it can."""
        try:
            with self._pool.active(None), torch.inference_mode():
                self._base(input_ids=torch.zeros((1, 1), dtype=torch.long, device=self._base.device))
        except Exception as error:  # noqa: BLE001 - whatever it is, this process cannot generate
            _log.exception("the base cannot compute any more")
            return error
        return None

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._closing or self._waiting or self._opening or self._batches or self._errands):
                self._changed.wait()
            return not self._closing

    def _sweep(self) -> None:
        """Let go of rows that nobody waits for or whose time is over."""
        with self._changed:
            for row in self._rows():
                row.done = row.done or row.cancelled
                row.expire()
            self._waiting = deque(row for row in self._waiting if not row.done)
        for batch in self._all_batches():
            batch.keep_unfinished()
        self._forget_empty()

    def _read_prompts(self) -> None:
        """Read prompts of waiting rows, as far as there is room: a round's number of tokens, then others have turns."""
        left = self._prompt_tokens_per_round
        while left > 0 and (self._opening is not None or self._open_next()):
            left -= self._read_piece(left)

    def _next_rows(self) -> list[BatchRow]:
        room = self._max_batch_size - sum(len(batch.rows) for batch in self._batches)
        with self._changed:
            # The oldest row holds the line when running versions hold all adapter places: if newer rows could still
            # join those, a place might never become free.
            if room <= 0 or not self._waiting or self._errands.holds_line:
                return []
            if not self._pool.can_take(self._waiting[0].version_id, self._pinned()):
                return []
            rows = [row for row in self._waiting if row.kind == self._waiting[0].kind][:room]
            self._waiting = deque(row for row in self._waiting if row not in rows)
            self._opening = DecodingBatch(self._base, rows)
            return rows

    def _rows(self) -> list[BatchRow]:
        """All that are not finished, those whose prompts are being read among them; asked under the lock."""
        return [*self._waiting, *(row for batch in self._all_batches() for row in batch.rows)]

    def _all_batches(self) -> list[DecodingBatch]:
        return [*self._batches, *([] if self._opening is None else [self._opening])]

    def _put_back(self, rows: list[BatchRow]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(rows))

    def _pinned(self) -> set[str | None]:
        return {batch.version_id for batch in self._all_batches()}

    def _open_next(self) -> bool:
        """Load the next rows' adapter and lay out their prompts; False where no row can begin."""
        rows = self._next_rows()
        if not rows:
            return False
        batch, adapter = self._opening, rows[0].request.adapter
        assert batch is not None
        try:
            if adapter is not None:
                self._pool.ensure(adapter, self._pinned())
            with self._pool.active(batch.version_id) as model:
                batch.rows = _with_room(rows, num_trained(model))
                if batch.rows:
                    batch.open(trained_positions(model, len(batch.rows)))
        except AdapterError as error:
            for row in rows:
                row.fail(error)
            batch.rows = []
        except Exception as error:  # noqa: BLE001 - whatever one request broke, the others go on
            self._split(batch, error)
        self._forget_empty()
        return True

    def _read_piece(self, max_tokens: int) -> int:
        """Read a piece of the opening rows' prompts; once read, they join the running batch of their version."""
        batch = self._opening
        if batch is None:
            return 0
        read, unread = batch.num_read, batch.num_unread
        try:
            with self._pool.active(batch.version_id):
                logits = batch.read(max_tokens)
            if logits is not None:
                self._advance(batch, logits)
                self._place(batch)
        except Exception as error:  # noqa: BLE001 - whatever one request broke, the others go on
            self._split(batch, error)
        self._forget_empty()
        with self._changed:
            self._prompt_tokens += batch.num_read - read
        return max(unread - batch.num_unread, 1)

    def _place(self, batch: DecodingBatch) -> None:
        """From reading its prompts to the running batches."""
        running = next((each for each in self._batches if each.kind == batch.kind), None) if batch.rows else None
        with self._changed:
            self._opening = None
            if running is None:
                self._batches.append(batch)
                return
            try:
                running.join(batch)
            except Exception as error:  # noqa: BLE001 - as when memory does not suffice for both
                running.rows = [*running.rows, *(row for row in batch.rows if row not in running.rows)]
                self._split(running, error)

    def _take_turn(self, batch: DecodingBatch) -> None:
        try:
            with self._pool.active(batch.version_id):
                for _ in range(_STEPS_PER_TURN):
                    self._advance(batch, batch.step())
                    if not batch.rows:
                        break
        except Exception as error:  # noqa: BLE001 - whatever one request broke, the others go on
            self._split(batch, error)
        self._forget_empty()

    def _advance(self, batch: DecodingBatch, logits: torch.Tensor) -> None:
        # The largest tells of any value that is NaN or infinite; single tokens may well be forbidden with -inf.
        finite = torch.isfinite(logits.amax(dim=-1)).tolist()
        for row, row_logits, good in zip(batch.rows, logits, finite, strict=True):
            if good:
                row.advance(row_logits)
            else:
                row.fail(GenerationFailed("the model computed values that are not finite for this request"))
        with self._changed:
            self._generated_tokens += sum(finite)
        batch.keep_unfinished()

    def _split(self, batch: DecodingBatch, error: Exception) -> None:
        """One row of a failed batch may be the cause: try its halves apart, so that only the guilty one fails."""
        rows, batch.rows = [row for row in batch.rows if not row.done], []
        _log.warning("a batch of %d failed: %s: %s", len(rows), type(error).__name__, error)
        if len(rows) <= 1:
            self._failure = self._broken()
            failed = f"the model could not compute this request ({type(error).__name__})"
            for row in rows:
                row.fail(GenerationFailed(failed) if self._failure is None else EngineDied(failed))
            return
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):
            company = object()
            for row in part:
                row.company = company
        self._put_back(rows)

    def _forget_empty(self) -> None:
        with self._changed:
            if self._opening is not None and not self._opening.rows:
                self._opening = None
            self._batches = [batch for batch in self._batches if batch.rows]

    def _fail_all(self, reason: GenerationFailed) -> None:
        with self._changed:
            rows = self._rows()
            self._waiting.clear()
            self._opening, self._batches = None, []
        for row in rows:
            if not row.done:
                row.fail(reason)
        self._errands.fail_all(reason)


def _counts(row: BatchRow) -> bool:
    """Whether somebody still waits for the row."""
    return not (row.done or row.cancelled)


def _with_room(rows: list[BatchRow], num_trained: int) -> list[BatchRow]:
    """The rows whose context has room for an answer beside the trained positions; the others fail."""
    for row in rows:
        row.reserve(num_trained)
    return [row for row in rows if not row.done]
