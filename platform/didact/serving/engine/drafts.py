"""Tokens that may come next, guessed from the text itself: one pass over the model then checks several at once.

    text so far -> PromptLookup.draft -> DecodingBatch.step_ahead -> as many tokens as the model agrees with

Every token is still chosen by the model and the row's own sampling, so answers are those without drafts. What is won
depends on how much an answer repeats: of its prompt, as in edits and summaries, or of itself.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from transformers import PreTrainedModel

from didact.serving.engine.step_graphs import attends_to_all

_SIZES = (3, 2)
"""Tokens that must be alike, the longer first."""
_LONGEST_WAIT = 32
_POSITIONS = {"cpu": 32}
"""Positions in one pass, of all rows together, up to which a further one costs a device little."""
_MOST_POSITIONS = 256


class PromptLookup:
    """Drafts of one row: what followed when its newest tokens last stood in prompt or answer (Saxena, 2023)."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._text: list[int] = []
        self._follower: dict[tuple[int, ...], int] = {}
        """Where the text goes on behind some tokens, when they last stood there."""
        self._num_prompt = len(prompt)
        self._misses = 0
        """Drafts in a row of which nothing was right."""
        self._wait = 0
        """Tokens to go without a draft."""
        self._read(prompt)

    def draft(self, answer: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow the answer so far; none after guesses that were wrong."""
        self._read(answer[len(self._text) - self._num_prompt :])
        if self._wait > 0:
            self._wait -= 1
            return []
        for size in _SIZES:
            place = self._follower.get(tuple(self._text[-size:]))
            if place is not None:
                return self._text[place : place + max(most, 0)]
        return []

    def judge(self, num_right: int) -> None:
        """Take note of how much of the last draft was right: guessing is paid for."""
        self._misses = 0 if num_right else self._misses + 1
        self._wait = min(2**self._misses, _LONGEST_WAIT) if self._misses else 0

    def _read(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            for size in _SIZES:
                if len(self._text) >= size:
                    self._follower[tuple(self._text[-size:])] = len(self._text)
            self._text.append(token)


def allows_gaps(base: PreTrainedModel) -> bool:
    """Whether a row may have columns between others that it does not attend to: positions come from the row's own text
    (rotary), and not from the distance of columns (ALiBi, sliding windows)."""
    text = base.config.get_text_config()
    rotary = getattr(text, "rope_parameters", None) or getattr(text, "rope_theta", None)
    return bool(rotary) and not getattr(text, "alibi", False) and attends_to_all(base)


class Drafting:
    """When drafts are worth it, and what came of them."""

    def __init__(self, base: PreTrainedModel, most_tokens: int) -> None:
        """Drafts of up to `most_tokens` tokens a row; 0 for none."""
        self.most_tokens = most_tokens
        self._several_rows = most_tokens > 0 and allows_gaps(base)
        self._most_positions = _POSITIONS.get(base.device.type, _MOST_POSITIONS)
        self.num_drafts = 0
        self.num_drafted = 0
        """Tokens."""
        self.num_right = 0
        """Of these, those that the model chose as well."""

    def drafts(self, rows: Sequence["_Drafted"]) -> list[list[int]]:
        """One for each row, some of them empty; none at all where a plain step is the better choice."""
        most = min(self.most_tokens, self._most_positions // len(rows) - 1)
        if most < 1 or (len(rows) > 1 and not self._several_rows):
            return []
        drafts = [row.lookup.draft(row.answer, min(most, row.num_left - 1)) if row.lookup else [] for row in rows]
        # The others are computed for the longest draft, too.
        return drafts if 2 * sum(map(bool, drafts)) >= len(rows) else []

    def judge(self, rows: Sequence["_Drafted"], drafts: Sequence[Sequence[int]], counts: Sequence[int]) -> None:
        """Count what came of drafts; `counts` are the tokens of each that were right."""
        for row, draft, count in zip(rows, drafts, counts, strict=True):
            if draft and row.lookup:
                row.lookup.judge(count)
                self.num_drafts += 1
                self.num_drafted += len(draft)
                self.num_right += count


class _Drafted(Protocol):
    """A row in generation."""

    answer: list[int]
    lookup: PromptLookup | None

    @property
    def num_left(self) -> int: ...
