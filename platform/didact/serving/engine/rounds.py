"""What the step thread does, round by round: errands, pieces of prompts, a few steps of each batch.

A batch that fails is cut in halves, which are tried again apart, until the guilty row stands alone and fails.
"""

import threading
import time
from collections.abc import Sequence

import torch
from transformers import Cache

from didact.errors import AdapterError
from didact.logs import get_logger
from didact.models import AdapterHost
from didact.models.methods import num_trained_positions
from didact.serving.engine.adapter_pool import AdapterPool
from didact.serving.engine.batch import DecodingBatch, trained_positions
from didact.serving.engine.drafts import Drafting
from didact.serving.engine.errands import Errands
from didact.serving.engine.graphed_batch import GraphedBatch
from didact.serving.engine.memory.cache_room import CacheRoom
from didact.serving.engine.memory.prefix_cache import BLOCK, PrefixCache
from didact.serving.engine.protocol import EngineDied, GenerationFailed
from didact.serving.engine.reading_pace import ReadingPace
from didact.serving.engine.row import BatchRow, with_room
from didact.serving.engine.step_graphs import recorder_for
from didact.serving.engine.waiting import WaitingRows

_log = get_logger(__name__)
_STEPS_PER_TURN = 4
"""Tokens per row before the next batch has its turn: putting another adapter in force takes about as long as a step."""


class Rounds:
    """All rows of an engine, and how they go on. Only the step thread calls `run_one`."""

    def __init__(
        self,
        host: AdapterHost,
        changed: threading.Condition,
        *,
        max_adapters: int,
        max_batch_size: int,
        prompt_tokens: int,
        known_bytes: int,
        room: CacheRoom,
        record_steps: bool | None = None,
        lookup_tokens: int = 0,
    ) -> None:
        """Nothing runs yet.

        Args:
            host: the base and the adapters on it.
            changed: guards what other threads see: the rows and the counts.
            max_adapters: adapters in memory.
            max_batch_size: rows in generation.
            prompt_tokens: tokens of prompts that are read in a round at most; on processors less while rows run.
            known_bytes: memory for keys and values of prompts that were read.
            room: memory for those of rows in generation.
            record_steps: as `EmbeddedEngine` takes it.
            lookup_tokens: tokens of a row that are guessed at once.
        """
        self._base = host.base
        self._changed = changed
        self._max_batch_size = max_batch_size
        self.room = room
        self.pace = ReadingPace(prompt_tokens)
        # Elsewhere a pass has only been asked for when it returns, and its time is not known.
        self._is_timed = self._base.device.type == "cpu"
        # One slot more than rows, for a borrower.
        self.pool = AdapterPool(host, max_adapters, min(max_adapters, max_batch_size) + 1, self._wake)
        self.graphs = recorder_for(self._base, self.pool.slots, max_batch_size, record_steps)
        self.drafting = Drafting(self._base, lookup_tokens)
        self._known = PrefixCache(known_bytes)
        self.waiting = WaitingRows(self.pool)
        self.errands = Errands(self.pool)
        self._opening: DecodingBatch | None = None
        """Rows whose prompts are being read."""
        self._batches: list[DecodingBatch] = []
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.failure: Exception | None = None
        """Why the base cannot compute any more."""

    def run_one(self) -> None:
        """Whatever happens in a round, the next can come, unless `failure` is set."""
        try:
            self._sweep()
            self.errands.run(self._pinned())
            self._read_prompts()
            running, waiting = self._crowd()
            steps = 1 if len(self._batches) == 1 and waiting > running else _STEPS_PER_TURN
            for batch in list(self._batches):
                self._take_turn(batch, steps)
        except Exception as error:  # noqa: BLE001 - no row is known to be the cause, so all end, and others can come
            _log.exception("a round of generation failed")
            self.fail_all(GenerationFailed(f"a round of generation failed ({type(error).__name__})"))
            self.failure = self._broken()

    @property
    def has_begun(self) -> bool:
        """Whether rows are in generation."""
        return bool(self._opening or self._batches)

    @property
    def is_asked(self) -> bool:
        """Whether anybody waits to begin."""
        return bool(self.waiting or self.errands)

    def any_ready(self) -> bool:
        """Whether one who waits could begin now; has the adapters of the others read."""
        return self.waiting.any_ready() or self.errands.any_ready()

    def rows(self) -> list[BatchRow]:
        """All that are not finished, those whose prompts are being read among them; asked under the lock."""
        return [*self.waiting, *self.begun()]

    def begun(self) -> list[BatchRow]:
        """Rows in generation, those whose prompts are being read among them; asked under the lock."""
        return [row for batch in self._all_batches() for row in batch.rows]

    def fail_all(self, reason: GenerationFailed) -> None:
        """End every row and errand."""
        with self._changed:
            rows = self.rows()
            self.waiting.clear()
            self._opening, self._batches = None, []
        for row in rows:
            if not row.done:
                row.fail(reason)
        self.errands.fail_all(reason)

    def _broken(self) -> Exception | None:
        """Why the bare base cannot read a single token any more, as after a fault of its GPU; None where it can."""
        try:
            with self.pool.active(None), torch.inference_mode():
                self._base(input_ids=torch.zeros((1, 1), dtype=torch.long, device=self._base.device))
        except Exception as error:  # noqa: BLE001 - whatever it is, this process cannot generate
            _log.exception("the base cannot compute any more")
            return error
        return None

    def _sweep(self) -> None:
        """Let go of rows that nobody waits for or whose time is over."""
        with self._changed:
            for row in self.rows():
                row.done = row.done or row.cancelled
                row.expire()
            self.waiting.drop_done()
            self.pool.forget_unwanted({row.version_id for row in self.rows()} | self.errands.version_ids)
        for batch in self._all_batches():
            batch.keep_unfinished()
        self._forget_empty()

    def _read_prompts(self) -> None:
        """Read prompts of waiting rows, as far as there is room: what the pace allows, then others have turns."""
        running, waiting = self._crowd()
        budget = left = self.pace.tokens(running if self._is_timed else 0, waiting)
        while left > 0 and (self._opening is not None or self._open_next()):
            batch = self._opening
            # A small piece costs nearly as much as a whole one, which the next round reads.
            if batch is not None and left < min(budget // 2, batch.num_unread):
                break
            left -= self._read_piece(left)

    def _crowd(self) -> tuple[int, int]:
        """How many rows wait for their next token, and how many for their first that have a place."""
        running = sum(len(batch.rows) for batch in self._batches)
        opening = len(self._opening.rows) if self._opening else 0
        with self._changed:
            return running, opening + min(len(self.waiting), self._max_batch_size - running - opening)

    def _next_rows(self) -> list[BatchRow]:
        room = self._max_batch_size - sum(len(batch.rows) for batch in self._batches)
        with self._changed:
            rows = [] if self.errands.holds_line else self.waiting.take(room, self._pinned(), self._fit)
            if rows:
                self._opening = DecodingBatch(self._base, rows, self.pool.slots)
            return rows

    def _fit(self, rows: Sequence[BatchRow]) -> bool:
        running = self._lengths()
        together = {**running, rows[0].kind: [*running.get(rows[0].kind, []), *(row.full_length for row in rows)]}
        usage = self.room.usage([*together.values()])
        # One alone begins in any case: it was let in.
        return usage is None or usage <= 1 or (len(rows) == 1 and not running)

    def _lengths(self) -> dict[tuple[str | None, object | None], list[int]]:
        """Full lengths of the rows in generation, by what makes them one batch."""
        found: dict[tuple[str | None, object | None], list[int]] = {}
        for row in self.begun():
            found.setdefault(row.kind, []).append(row.full_length)
        return found

    @property
    def cache_usage(self) -> float | None:
        """Share of the memory for keys and values that is spoken for; None without a limit. Asked under the lock."""
        return self.room.usage([*self._lengths().values()])

    def _all_batches(self) -> list[DecodingBatch]:
        return [*self._batches, *([] if self._opening is None else [self._opening])]

    def _put_back(self, rows: list[BatchRow]) -> None:
        with self._changed:
            self.waiting.put_back(rows)

    def _pinned(self) -> set[str | None]:
        return {row.version_id for batch in self._all_batches() for row in batch.rows}

    def _open_next(self) -> bool:
        """Load the next rows' adapter and lay out their prompts; False where no row can begin."""
        rows = self._next_rows()
        if not rows:
            return False
        batch = self._opening
        assert batch is not None
        try:
            batch.rows = self._with_adapters(rows)
            if batch.rows:
                with self.pool.active(batch.kind[0]) as model:
                    batch.rows = with_room(batch.rows, num_trained_positions(model))
                    if batch.rows:
                        self._lay_out(batch, trained_positions(model, len(batch.rows)))
        except Exception as error:  # noqa: BLE001 - whatever one request broke, the others go on
            self._split(batch, error)
        self._forget_empty()
        return True

    def _lay_out(self, batch: DecodingBatch, trained: Cache | torch.Tensor | None) -> None:
        """Open a batch with what is known of its prompts; rows of which more or less is known open later."""
        if trained is not None:
            batch.open(trained)
            return
        first, asked, later = -1, set(), []
        for row in batch.rows:
            text = (row.version_id, tuple(row.ids))
            count = self._known.match(*text, row.request.search)
            first = count if first < 0 else first
            # One of several answers to the same prompt reads it for all.
            alike = text in asked and not row.deferred and len(row.ids) - count > BLOCK
            if count != first or alike:
                row.deferred = row.deferred or alike
                later.append(row)
            asked.add(text)
        # The longest first, as a batch reads them with the least padding.
        batch.rows = sorted((row for row in batch.rows if row not in later), key=lambda row: -len(row.ids))
        self._put_back(later)
        texts = [(row.version_id, row.ids, row.request.search) for row in batch.rows]
        known = self._known.take(texts, first) if first else None
        batch.open(known, first)
        with self._changed:
            self.cached_tokens += first * len(batch.rows)

    def _with_adapters(self, rows: list[BatchRow]) -> list[BatchRow]:
        """Have the rows' adapters in place; those whose adapter is refused fail, those of another group go back."""
        refused: dict[str | None, AdapterError] = {}
        for row in rows:
            adapter = row.request.adapter
            if adapter is None:
                continue
            try:
                if row.version_id not in refused:
                    self.pool.ensure(adapter, self._pinned())
            except AdapterError as error:
                refused[row.version_id] = error
            if row.version_id in refused:
                row.fail(refused[row.version_id])
        kept = [row for row in rows if not row.done and self.pool.group(row.version_id) == row.group]
        self._put_back([row for row in rows if not row.done and row not in kept])
        for row in kept:
            row.slot = self.pool.seat(row.version_id, self._pinned())
        return kept

    def _read_piece(self, max_tokens: int) -> int:
        """Read a piece of the opening rows' prompts; once read, they join the running batch of their version."""
        batch = self._opening
        if batch is None:
            return 0
        read, computed, began = batch.num_read, batch.num_computed, time.perf_counter()
        try:
            with self.pool.active(batch.kind[0]):
                logits = batch.read(max_tokens)
            self.pace.read(max(batch.num_computed - computed, 1), time.perf_counter() - began)
            if logits is not None:
                if batch.kind[1] is None and bool(torch.isfinite(logits.amax(dim=-1)).all()):
                    batch.keep_prompts(self._known)
                self._advance(batch, logits)
                self._place(batch)
        except Exception as error:  # noqa: BLE001 - whatever one request broke, the others go on
            self._split(batch, error)
        self._forget_empty()
        with self._changed:
            self.prompt_tokens += batch.num_read - read
        return max(batch.num_computed - computed, 1)

    def _place(self, batch: DecodingBatch) -> None:
        """From reading its prompts to the running batches."""
        running = next((each for each in self._batches if each.kind == batch.kind), None) if batch.rows else None
        with self._changed:
            self._opening = None
            if running is None and self.graphs is not None and batch.rows and batch.kind == (None, None):
                running = GraphedBatch(self._base, self.pool.slots, self.graphs)
                self._batches.append(running)
            if running is None:
                self._batches.append(batch)
                return
            try:
                running.join(batch)
            except Exception as error:  # noqa: BLE001 - as when memory does not suffice for both
                running.rows = [*running.rows, *(row for row in batch.rows if row not in running.rows)]
                self._split(running, error)

    def _take_turn(self, batch: DecodingBatch, steps: int) -> None:
        try:
            with self.pool.active(batch.kind[0]):
                for _ in range(steps):
                    began = time.perf_counter()
                    self._step(batch)
                    self.pace.stepped(time.perf_counter() - began)
                    if not batch.rows or any(row.cancelled for row in batch.rows):
                        break
        except Exception as error:  # noqa: BLE001 - whatever one request broke, the others go on
            self._split(batch, error)
        self._forget_empty()

    def _step(self, batch: DecodingBatch) -> None:
        drafts = self.drafting.drafts(batch.rows) if batch.takes_drafts else []
        if not drafts:
            self._advance(batch, batch.step())
            return
        counts = self._take(batch, batch.step_ahead(drafts), drafts)
        right = [max(count - 1, 0) for count in counts]
        with self._changed:
            self.drafting.judge(batch.rows, drafts, right)
        batch.keep_right(right, max(map(len, drafts)))
        batch.keep_unfinished()

    def _advance(self, batch: DecodingBatch, logits: torch.Tensor) -> None:
        self._take(batch, logits[:, None], [()] * len(batch.rows))
        batch.keep_unfinished()

    def _take(self, batch: DecodingBatch, logits: torch.Tensor, drafts: Sequence[Sequence[int]]) -> list[int]:
        """Choose tokens from float [rows, places, vocabulary]; returns how many each row got.

        A row has its next token in any case, and a further one for each of its draft that was chosen.
        """
        # The largest tells of any value that is NaN or infinite; single tokens may well be forbidden with -inf.
        largest = logits.max(dim=-1)
        finite, likeliest = torch.stack([torch.isfinite(largest.values).long(), largest.indices]).tolist()
        counts = list(map(_take_row, batch.rows, drafts, logits, finite, likeliest))
        with self._changed:
            self.generated_tokens += sum(counts)
        return counts

    def _split(self, batch: DecodingBatch, error: Exception) -> None:
        """One row of a failed batch may be the cause: try its halves apart, so that only the guilty one fails."""
        rows, batch.rows = [row for row in batch.rows if not row.done], []
        batch.release()
        _log.warning("a batch of %d failed: %s: %s", len(rows), type(error).__name__, error)
        if len(rows) <= 1:
            self.failure = self._broken()
            failed = f"the model could not compute this request ({type(error).__name__})"
            for row in rows:
                row.fail(GenerationFailed(failed) if self.failure is None else EngineDied(failed))
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

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()


def _take_row(
    row: BatchRow, draft: Sequence[int], logits: torch.Tensor, finite: list[int], likeliest: list[int]
) -> int:
    for place in range(len(draft) + 1):
        if not finite[place]:
            row.fail(GenerationFailed("the model computed values that are not finite for this request"))
            return place
        row.advance(logits[place], likeliest[place])
        if row.done or place == len(draft) or row.answer[-1] != draft[place]:
            break
    return place + 1
