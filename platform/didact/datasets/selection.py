"""Which rows are trained on and which are held out: a function of the seed and each row's place, nothing else."""

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from didact.datasets.types import Conversation


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen rows, each part in the source's order."""

    train: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]
    num_leaks: int
    """Rows passed over because a held-out row has the same prompt."""


def select(rows: Sequence[Conversation], *, max_rows: int | None, held_out_rows: int, seed: int) -> Selection:
    """Hold rows out, drop what would leak them, and keep at most `max_rows` in all.

    A row's rank is a hash of (seed, purpose, row), so the choice survives repairs of other rows, the held-out rows are
    the same for every `max_rows`, and a smaller `max_rows` takes a subset of a larger one.

    Args:
        rows: accepted rows.
        max_rows: rows in both parts together; None for all.
        held_out_rows: rows set aside.
        seed: `data.seed`.
    """
    held_out = _draw(rows, held_out_rows, seed, "held_out")
    set_aside = {conversation.row for conversation in held_out}
    asked = {conversation.prompt for conversation in held_out}
    rest = [conversation for conversation in rows if conversation.row not in set_aside]
    clean = [conversation for conversation in rest if conversation.prompt not in asked]
    wanted = len(clean) if max_rows is None else max(0, max_rows - len(held_out))
    return Selection(_draw(clean, wanted, seed, "train"), held_out, len(rest) - len(clean))


def _draw(rows: Sequence[Conversation], count: int, seed: int, purpose: str) -> tuple[Conversation, ...]:
    if count >= len(rows):
        return tuple(rows)
    drawn = heapq.nsmallest(count, rows, key=lambda conversation: _rank(seed, purpose, conversation.row))
    return tuple(sorted(drawn, key=lambda conversation: conversation.row))


def _rank(seed: int, purpose: str, row: int) -> tuple[bytes, int]:
    return hashlib.blake2b(f"{seed}/{purpose}/{row}".encode(), digest_size=8).digest(), row
