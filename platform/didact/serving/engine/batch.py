"""Rows that are generated together, with their keys and values in one cache.

Columns are positions in the cache. Rows are padded on the left, so the newest token of every row is in the last column.
`mask` [rows, columns] marks what a row may attend to, and `positions` [rows] is the position of its newest token in its
own text, so padding never shifts a rotary or learned position. Rows join and leave between any two steps: a joining
batch is padded to the same number of columns and stacked below.

While prompts are read, the longest rows are computed first and each shorter one from the column where its text begins,
so that little of what is computed is padding.
"""

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, PreTrainedModel

from didact.models.adapter import RowSlots
from didact.models.methods import num_trained_positions
from didact.serving.engine.memory.prefix_cache import PrefixCache
from didact.serving.engine.memory.row_attention import reads_rows, rows_beginning
from didact.serving.engine.memory.row_cache import keeping_order, row_cache
from didact.serving.engine.row import BatchRow

_PADDING = 1 / 8
"""Of a piece's positions, at most: more is left out, though it takes another pass."""
_MOST_COLUMNS = 1.5
"""Columns of the cache, as a multiple of the longest row's, before the gaps in them are closed."""


class DecodingBatch:
    """Rows in generation. What their group needs must be in force on `base` during `open`, `read` and `step`."""

    def __init__(self, base: PreTrainedModel, rows: list[BatchRow], slots: RowSlots | None = None) -> None:
        self.rows = rows
        self._base = base
        self._slots = slots
        self._cache = row_cache()
        self._mask = torch.empty(0)
        self._positions = torch.empty(0)
        self._unread_name, self._unread, self._unread_positions = "input_ids", torch.empty(0, 0), torch.empty(0, 0)
        self._begins: list[int] = []
        self._keeps_logits = _keeps_logits(base)
        self._reads_rows = reads_rows(base)
        self.num_computed = 0
        """Positions of prompts that were computed, padding counted."""

    takes_drafts = True
    """Whether `step_ahead` may be asked for."""

    @property
    def kind(self) -> tuple[str | None, object | None]:
        """What the rows have in common: group and company."""
        return self.rows[0].kind

    def open(self, trained: Cache | torch.Tensor | None = None, num_known: int = 0) -> None:
        """Lay the prompts out; `read` then reads them, a piece at a time.

        Args:
            trained: what the adapter puts before every prompt: a cache of keys and values of the same number of rows
                (prefix tuning), or input embeddings [rows, positions, hidden size]; None for nothing. Or keys and
                values of the first tokens of each row's own text.
            num_known: how many of its own tokens, the same for every row.
        """
        texts = [row.ids[num_known:] for row in self.rows]
        longest = max(map(len, texts))
        device = self._base.device
        ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts], device=device)
        lengths = torch.tensor([[len(text)] for text in texts], device=device)
        self._mask = (torch.arange(longest, device=device) >= longest - lengths).long()
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self.num_read = 0
        """Tokens of prompts that were read, neither padding nor trained positions counted."""
        self._first_own = 0
        """Column of the cache where prompts begin."""
        self._unread_name, self._unread = "input_ids", ids
        if trained is not None:
            count = trained.shape[1] if isinstance(trained, torch.Tensor) else trained.get_seq_length()
            self._first_own = count
            self._mask = torch.cat([self._mask.new_ones(len(texts), count), self._mask], dim=-1)
            positions = positions + count
            if isinstance(trained, torch.Tensor):
                embedded = self._base.get_input_embeddings()(ids)
                self._unread_name = "inputs_embeds"
                self._unread = torch.cat([trained.to(embedded.dtype), embedded], dim=1)
                first = torch.arange(count, device=device).expand(len(texts), count)
                positions = torch.cat([first, positions], dim=1)
            else:
                self._cache = row_cache(trained)
        self._unread_positions, self._positions = positions, positions[:, 0]
        own = self._unread_name == "input_ids"
        self._begins = [longest - len(text) if own else 0 for text in texts]
        """Each row's first unread column that is not padding."""

    def read(self, max_tokens: int | None = None) -> torch.Tensor | None:
        """Read the next piece of the prompts; None reads all that is left in one pass, padding and all.

        Args:
            max_tokens: positions to compute, padding counted, but one for each row in any case.

        Returns:
            float [rows, vocabulary]: logits of each row's next token, once the prompts are read to their end; None
            before.
        """
        left = self._unread.shape[1]
        rows, piece = (len(self.rows), left) if max_tokens is None else self._next_piece(max_tokens)
        if not self._cache.layers:
            self._cache = row_cache(rows=len(self.rows))
        start = self._num_cached
        self.num_read += int(self._mask[:rows, max(start, self._first_own) : start + piece].sum())
        self.num_computed += rows * piece
        entered, positions = self._unread[:rows, :piece], self._unread_positions[:rows, :piece]
        self._positions = self._unread_positions[:, piece - 1]
        self._unread, self._unread_positions = self._unread[:, piece:], self._unread_positions[:, piece:]
        self._begins = [max(begin - piece, 0) for begin in self._begins]
        logits = self._forward({self._unread_name: entered}, positions, int(piece == left))
        return logits[:, -1] if piece == left else None

    def _next_piece(self, max_tokens: int) -> tuple[int, int]:
        """How many of the first rows to compute, and for how many columns; the others have only padding there."""
        left, padding = self._unread.shape[1], 0

        def most(rows: int) -> int:
            return min(left, max(max_tokens // rows, 1))

        rows = self._beginning_before(1)
        for begin in sorted({each for each in self._begins if each}):
            more = self._beginning_before(begin + 1)
            if begin >= most(rows):
                break
            padding += begin * (more - rows)
            # A pass of its own costs more than a little padding does.
            if padding > max_tokens * _PADDING or begin >= most(more):
                return rows, begin
            rows = more
        # Pieces of one size: a last one of few columns would cost a whole pass.
        num_pieces = -(-left // most(rows)) if rows == len(self.rows) else 1
        return rows, -(-left // num_pieces) if num_pieces > 1 else most(rows)

    def _beginning_before(self, column: int) -> int:
        """The first so many rows hold all whose text begins before an unread column."""
        return max((index for index, begin in enumerate(self._begins) if begin < column), default=0) + 1

    def keep_prompts(self, known: PrefixCache) -> None:
        """Remember what was read of rows that begin with their own text."""
        for index, row in enumerate(self.rows):
            columns = self._mask[index].nonzero().flatten()
            if len(columns) == len(row.ids):
                known.keep(row.version_id, row.ids, self._cache, index, columns, row.request.search)

    @property
    def num_unread(self) -> int:
        """Positions that are left to read, trained ones counted and padding not."""
        return self._unread.shape[0] * self._unread.shape[1] - sum(self._begins)

    @property
    def _num_cached(self) -> int:
        return self._mask.shape[-1] - self._unread.shape[1]

    def step(self) -> torch.Tensor:
        """Read each row's newest token. Returns float [rows, vocabulary], the logits of the next."""
        newest = torch.tensor([[row.answer[-1]] for row in self.rows], device=self._base.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=-1)
        self._positions = self._positions + 1
        own = rows_beginning(self._mask.argmax(dim=-1).tolist()) if self._reads_rows else contextlib.nullcontext()
        with own:
            return self._forward({"input_ids": newest}, self._positions[:, None])[:, -1]

    def step_ahead(self, drafts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read each row's newest token and the tokens that may follow it; `keep_right` must come next.

        Args:
            drafts: one for each row, at least one of them not empty.

        Returns:
            float [rows, 1 + longest draft, vocabulary]: logits of the token behind each; behind the end of a shorter
            draft they mean nothing.
        """
        longest = max(map(len, drafts))
        ids = [[row.answer[-1], *draft, *[0] * (longest - len(draft))]
               for row, draft in zip(self.rows, drafts, strict=True)]  # fmt: skip
        read = [[1] * (1 + len(draft)) + [0] * (longest - len(draft)) for draft in drafts]
        device = self._base.device
        self._mask = torch.cat([self._mask, torch.tensor(read, device=device)], dim=-1)
        positions = self._positions[:, None] + torch.arange(1, longest + 2, device=device)
        return self._forward({"input_ids": torch.tensor(ids, device=device)}, positions, longest + 1)

    def keep_right(self, counts: Sequence[int], longest: int) -> None:
        """Forget what was read of drafts beyond the first `counts[row]` tokens of each.

        Args:
            counts: one for each row.
            longest: tokens of the longest draft.
        """
        right = torch.tensor(counts, device=self._mask.device)
        surplus = longest - max(counts)
        columns = self._mask.shape[-1] - surplus
        self._mask = self._mask[:, :columns].contiguous()
        places = torch.arange(columns - max(counts), columns, device=right.device)
        self._mask[:, places] = (places - places[:1] < right[:, None]).long()
        self._positions = self._positions + 1 + right
        for layer in self._cache.layers if surplus else ():
            layer.forget(surplus)
        self._close_gaps()

    def _close_gaps(self) -> None:
        """Move each row's columns together, once gaps take a good part of the memory."""
        columns, longest = self._mask.shape[-1], int(self._mask.sum(-1).max())
        if columns <= _MOST_COLUMNS * longest:
            return
        order = self._mask.argsort(dim=-1, stable=True)  # what a row attends to goes to the end
        self._mask = self._mask.gather(1, order)[:, columns - longest :]
        for layer in self._cache.layers:
            layer.reorder(order, columns - longest)

    def keep_unfinished(self) -> None:
        """Let finished rows go, and with them the padding that only they needed."""
        kept = [index for index, row in enumerate(self.rows) if not row.done]
        if len(kept) == len(self.rows):
            return
        kept = keeping_order(kept)
        self.rows = [self.rows[index] for index in kept]
        if not kept:
            return
        chosen = torch.tensor(kept, device=self._mask.device)
        self._mask, self._positions = self._mask[chosen], self._positions[chosen]
        surplus = int(self._mask.argmax(dim=-1).min())
        self._unread, self._unread_positions = self._unread[chosen], self._unread_positions[chosen]
        unread_surplus = max(surplus - self._num_cached, 0)
        self._unread = self._unread[:, unread_surplus:]
        self._unread_positions = self._unread_positions[:, unread_surplus:]
        self._begins = [max(self._begins[index] - unread_surplus, 0) for index in kept]
        self._mask = self._mask[:, surplus:]
        for layer in self._cache.layers:
            layer.keep(kept, min(surplus, layer.get_seq_length()))

    def join(self, other: "DecodingBatch") -> None:
        """Take over the rows of a batch of the same kind; both must have read their prompts."""
        columns = max(self._mask.shape[-1], other._mask.shape[-1])
        masks = [torch.nn.functional.pad(each._mask, (columns - each._mask.shape[-1], 0)) for each in (self, other)]
        self.rows = self.rows + other.rows
        self._mask = torch.cat(masks)
        self._positions = torch.cat([self._positions, other._positions])
        for mine, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            mine.join(theirs)
        self._begins = [0] * len(self.rows)
        self._unread = self._unread_positions = other._unread.new_empty(len(self.rows), 0)

    def release(self) -> None:
        """Give back what outlives the batch: it has failed."""

    def _forward(self, entered: dict[str, torch.Tensor], positions: torch.Tensor, num_logits: int = 1) -> torch.Tensor:
        """One pass over the next columns of the first rows; the logits of the last `num_logits` of them."""
        rows, length = positions.shape
        slots = [row.slot for row in self.rows[:rows]]
        own = self._slots.rows(slots, length) if self._slots else contextlib.nullcontext()
        # No positions at all, where none is asked for: logits of a large vocabulary cost as much as some layers.
        # A tensor says which, so the states are copied: of a slice of them torch makes a product for each row, and a
        # copy of the vocabulary's weights before each, 300 times the price on processors in bfloat16.
        last = torch.arange(length - num_logits, length, device=positions.device)
        kept = {"logits_to_keep": last} if self._keeps_logits else {}
        with torch.inference_mode(), own:
            output = self._base(
                **entered,
                attention_mask=self._mask[:rows, : self._num_cached],
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                **kept,
            )
        logits: torch.Tensor = output.logits
        return logits[:, max(logits.shape[1] - num_logits, 0) :]


def _keeps_logits(base: PreTrainedModel) -> bool:
    """Whether the model can leave out the logits of all but the last position (some always compute all)."""
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def trained_positions(model: Any, num_rows: int) -> Cache | torch.Tensor | None:
    """The positions before every prompt, for each row: keys and values, or input embeddings."""
    if num_trained_positions(model) == 0:
        return None
    with torch.inference_mode():
        return model.get_prompt(num_rows)
