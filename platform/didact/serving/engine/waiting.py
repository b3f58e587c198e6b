"""Which rows begin next: by priority, fair between adapter versions, past those whose adapter is still being read."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from didact.serving.engine.adapter_pool import AdapterPool
from didact.serving.engine.row import BatchRow

Fits = Callable[[Sequence[BatchRow]], bool]
_QUANTUM = 256
"""Tokens, prompt and answer together, that a version may begin before the next has its turn."""


class WaitingRows:
    """Rows of the smallest `priority` first; among these, a fair share to each adapter version. Asked under the
    engine's lock.
    """

    def __init__(self, pool: AdapterPool) -> None:
        self._pool = pool
        self._ranks: dict[int, _Rank] = {}

    def __iter__(self) -> Iterator[BatchRow]:
        return (row for priority in sorted(self._ranks) for row in self._ranks[priority])

    def __len__(self) -> int:
        return sum(map(len, self._ranks.values()))

    def add(self, row: BatchRow) -> None:
        """Behind the others of its priority and version."""
        self._rank(row).add(row)

    def put_back(self, rows: list[BatchRow]) -> None:
        """Rows that had begun go before all others of their priority."""
        for row in reversed(rows):
            self._rank(row).put_back(row)

    def drop_done(self) -> None:
        """Forget rows that are finished."""
        for rank in self._ranks.values():
            rank.drop_done()
        self._forget_empty()

    def clear(self) -> None:
        """Forget all."""
        self._ranks.clear()

    def any_ready(self) -> bool:
        """Whether a row could begin now; has the adapters of the others read."""
        return any([rank.any_ready() for rank in self._ranks.values()])

    def take(self, room: int, pinned: Collection[str | None], fits: Fits = lambda rows: True) -> list[BatchRow]:
        """Up to `room` rows that may share a batch, in turn of their versions.

        Args:
            room: rows.
            pinned: adapter versions of rows in generation.
            fits: whether these rows have memory beside those; the first that has none is waited for.
        """
        chosen, held = list[BatchRow](), {*pinned}
        for priority in sorted(self._ranks):
            self._ranks[priority].take(room, held, chosen, fits)
            if self._ranks[priority].any_ready():  # nobody passes those who only lack room
                break
        now = time.monotonic()
        for row in chosen:
            row.begun = row.begun or now
        self._forget_empty()
        return chosen

    def _rank(self, row: BatchRow) -> "_Rank":
        return self._ranks.setdefault(row.request.priority, _Rank(self._pool))

    def _forget_empty(self) -> None:
        self._ranks = {priority: rank for priority, rank in self._ranks.items() if len(rank)}


class _Rank:
    """Rows of one priority: a queue for each adapter version, in turn.

    By deficit round robin (Shreedhar & Varghese, 1995): a version with many or long requests gets no more than one with
    few, as long as both wait.
    """

    def __init__(self, pool: AdapterPool) -> None:
        self._pool = pool
        self._queues: dict[str | None, deque[BatchRow]] = {}
        self._turns: deque[str | None] = deque()
        self._credit: dict[str | None, int] = {}

    def __iter__(self) -> Iterator[BatchRow]:
        return (row for version_id in self._turns for row in self._queues[version_id])

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, row: BatchRow) -> None:
        self._queue(row).append(row)

    def put_back(self, row: BatchRow) -> None:
        self._queue(row).appendleft(row)
        self._turns.remove(row.version_id)
        self._turns.appendleft(row.version_id)

    def drop_done(self) -> None:
        for version_id, queue in list(self._queues.items()):
            self._queues[version_id] = deque(row for row in queue if not row.done)
            self._forget_empty(version_id)

    def any_ready(self) -> bool:
        return any([self._is_ready(version_id) for version_id in self._turns])

    def take(self, room: int, held: set[str | None], chosen: list[BatchRow], fits: Fits) -> None:
        """Add rows to those that were chosen; all share one batch."""
        ready = [version_id for version_id in self._turns if self._is_ready(version_id)]
        # The one whose turn it is holds the line when running versions hold all adapter places: if others could still
        # join those, a place might never become free.
        if room <= len(chosen) or not ready or not self._pool.can_take(ready[0], held):
            return
        kind = chosen[0].kind if chosen else self._kind(ready[0])
        assert kind is not None
        while len(chosen) < room:
            fitting = [each for each in ready if self._kind(each) == kind and self._pool.can_take(each, held)]
            if not fitting:
                break
            for version_id in fitting:
                if len(chosen) < room and self._pool.can_take(version_id, held):
                    if not self._give_turn(version_id, kind, room, chosen, fits):
                        room = 0
                    held.add(version_id)
        for version_id in list(self._queues):
            self._forget_empty(version_id)

    def _give_turn(
        self,
        version_id: str | None,
        kind: tuple[str | None, object | None],
        room: int,
        chosen: list[BatchRow],
        fits: Fits,
    ) -> bool:
        """Add rows of a version; False where the next one lacks memory, so that it keeps its turn."""
        queue = self._queues[version_id]
        self._credit[version_id] += _QUANTUM
        while self._kind(version_id) == kind and len(chosen) < room and _cost(queue[0]) <= self._credit[version_id]:
            queue[0].group = kind[0]
            if not fits([*chosen, queue[0]]):
                self._credit[version_id] -= _QUANTUM
                return False
            self._credit[version_id] -= _cost(queue[0])
            chosen.append(queue.popleft())
        self._turns.remove(version_id)
        self._turns.append(version_id)
        return True

    def _kind(self, version_id: str | None) -> tuple[str | None, object | None] | None:
        queue = self._queues[version_id]
        return (self._pool.group(version_id), queue[0].company) if queue else None

    def _is_ready(self, version_id: str | None) -> bool:
        adapter = self._queues[version_id][0].request.adapter
        if adapter is not None:
            self._pool.begin(adapter)
        return self._pool.is_ready(version_id)

    def _queue(self, row: BatchRow) -> deque[BatchRow]:
        version_id = row.version_id
        if version_id not in self._queues:
            self._queues[version_id] = deque()
            self._turns.append(version_id)
            self._credit[version_id] = 0
        return self._queues[version_id]

    def _forget_empty(self, version_id: str | None) -> None:
        if not self._queues[version_id]:
            del self._queues[version_id], self._credit[version_id]
            self._turns.remove(version_id)


def _cost(row: BatchRow) -> int:
    return len(row.request.prompt_ids) + row.request.max_new_tokens
