"""A proposer as one of Ray Tune's searchers. The journal is its memory, so that a kill forgets nothing."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher
from typing_extensions import override

from didact.files import write_json
from didact.logs import get_logger
from didact.tuning.journal import Entry, Journal
from didact.tuning.searchers import Draw, Proposer, Seen

_LOG = get_logger(__name__)
_FINISHED: dict[str, Any] = Searcher.FINISHED


class Proposals(Searcher):
    """Hands Tune the next proposal while fewer than `at_once` trials run, until there are `total`."""

    def __init__(
        self,
        proposer: Proposer,
        journal: Journal,
        seen: Callable[[Entry], Seen],
        check: Callable[[Draw], object],
        *,
        total: int,
        at_once: int,
        enough: Callable[[list[Entry]], str | None] | None = None,
    ) -> None:
        """Start with what the journal holds.

        Args:
            proposer: chooses.
            journal: proposals are written down there before Tune hears of them.
            seen: an entry of the journal with what its run has measured.
            check: refuses a draw that no recipe can be made of.
            total: proposals of the whole search, those of earlier processes included.
            at_once: trials that run side by side.
            enough: why, after these trials, no other one may begin; None where one may. Trials that still run may
                change it, so that the search ends when none does.
        """
        super().__init__()
        self._proposer, self._journal, self._seen, self._check = proposer, journal, seen, check
        self._total, self._at_once, self._enough = total, at_once, enough
        self._live: set[str] = set()
        self._known: set[str] = set()  # by Tune, running or not

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Tune brings a copy back when a sweep continues; those of earlier versions always had all their trials."""
        self.__dict__.update({"_enough": None, **state})

    @override
    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self._live) >= self._at_once:
            return None
        kept, lost = self._entries()
        index = next_index(kept)
        closed = self._journal.closed()
        if index >= (self._total if closed is None else min(self._total, closed[0])):
            return _FINISHED
        reason = self._enough(kept) if self._enough else None
        if reason is not None:
            if self._live:
                return None
            self._journal.close(index, reason)
            _LOG.info("the search ends with %d trials: %s", index, reason)
            return _FINISHED
        again = [entry.sample for entry in lost if entry.sample.get("draw", {}).get("index") == index]
        draw = Draw(**again[0]["draw"]) if again else self._proposer.propose(index, [self._seen(each) for each in kept])
        self._check(draw)
        self._journal.begin(trial_id, draw.config())
        self._live.add(trial_id)
        self._known.add(trial_id)
        return draw.config()

    def _entries(self) -> tuple[list[Entry], list[Entry]]:
        """Those that Tune knows or that have ended, and those whose process was killed before Tune had saved them."""
        kept, lost = list[Entry](), list[Entry]()
        for entry in self._journal.entries():
            known = entry.ended or entry.error is not None or entry.trial_id in self._known
            (kept if known else lost).append(entry)
        return kept, lost

    @override
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._live.discard(trial_id)

    @override
    def save(self, checkpoint_path: str) -> None:
        write_json(Path(checkpoint_path), {"live": sorted(self._live), "known": sorted(self._known)})

    @override
    def restore(self, checkpoint_path: str) -> None:
        saved = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        self._live, self._known = set(saved["live"]), set(saved["known"])


def next_index(entries: Sequence[Entry]) -> int:
    """Number of the proposal that comes after those of these trials."""
    taken = {index_of(entry, place) for place, entry in enumerate(entries)}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def index_of(entry: Entry, place: int) -> int:
    """Number of the proposal; sweeps of earlier versions did not number them."""
    return int(entry.sample["draw"]["index"]) if "draw" in entry.sample else place
