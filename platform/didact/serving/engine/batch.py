"""Rows that are generated together, with their keys and values in one cache.

Columns are positions in the cache. Rows are padded on the left, so the newest token of every row is in the last column.
`mask` [rows, columns] marks what a row may attend to, and `positions` [rows] is the position of its newest token in its
own text, so padding never shifts a rotary or learned position. Rows join and leave between any two steps: a joining
batch is padded to the same number of columns and stacked below.
"""

import contextlib
import inspect
from typing import Any

import torch
from transformers import Cache, PreTrainedModel

from didact.models.adapter import RowSlots
from didact.models.methods import num_trained_positions
from didact.serving.engine.memory.prefix_cache import PrefixCache
from didact.serving.engine.memory.row_cache import keeping_order, row_cache
from didact.serving.engine.row import BatchRow


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
        self._last_only = {"logits_to_keep": 1} if _keeps_logits(base) else {}

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
        self._unread_positions = positions

    def read(self, max_tokens: int | None = None) -> torch.Tensor | None:
        """Read the next piece of the prompts, padding counted; None reads all that is left.

        Returns:
            float [rows, vocabulary]: logits of each row's next token, once the prompts are read to their end; None
            before.
        """
        left = self._unread.shape[1]
        piece = left if max_tokens is None else min(left, max(max_tokens // len(self.rows), 1))
        start = self._num_cached
        self.num_read += int(self._mask[:, max(start, self._first_own) : start + piece].sum())
        entered, positions = self._unread[:, :piece], self._unread_positions[:, :piece]
        self._unread, self._unread_positions = self._unread[:, piece:], self._unread_positions[:, piece:]
        self._positions = positions[:, -1]
        logits = self._forward({self._unread_name: entered}, positions)
        return logits if piece == left else None

    def keep_prompts(self, known: PrefixCache) -> None:
        """Remember what was read of rows that begin with their own text."""
        for index, row in enumerate(self.rows):
            columns = self._mask[index].nonzero().flatten()
            if len(columns) == len(row.ids):
                known.keep(row.version_id, row.ids, self._cache, index, columns)

    @property
    def num_unread(self) -> int:
        """Tokens of prompts that are left to read, padding and trained positions counted."""
        return self._unread.shape[0] * self._unread.shape[1]

    @property
    def _num_cached(self) -> int:
        return self._mask.shape[-1] - self._unread.shape[1]

    def step(self) -> torch.Tensor:
        """Read each row's newest token. Returns float [rows, vocabulary], the logits of the next."""
        newest = torch.tensor([[row.answer[-1]] for row in self.rows], device=self._base.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=-1)
        self._positions = self._positions + 1
        return self._forward({"input_ids": newest}, self._positions[:, None])

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

    def release(self) -> None:
        """Give back what outlives the batch: it has failed."""

    def _forward(self, entered: dict[str, torch.Tensor], positions: torch.Tensor) -> torch.Tensor:
        slots = [row.slot for row in self.rows]
        own = self._slots.rows(slots, positions.shape[1]) if self._slots else contextlib.nullcontext()
        with torch.inference_mode(), own:
            output = self._base(
                **entered,
                attention_mask=self._mask[:, : self._num_cached],
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                **self._last_only,
            )
        return output.logits[:, -1]


def _keeps_logits(base: PreTrainedModel) -> bool:
    """Whether the model can leave out the logits of all but the last position (some always compute all)."""
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def trained_positions(model: Any, num_rows: int) -> Cache | torch.Tensor | None:
    """The positions before every prompt, for each row: keys and values, or input embeddings."""
    if num_trained_positions(model) == 0:
        return None
    with torch.inference_mode():
        return model.get_prompt(num_rows)
