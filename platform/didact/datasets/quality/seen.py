"""Questions of an evaluation that training rows hold, question by question.

A row holds a question by the rule by which training leaves rows out (`ContaminationIndex`), or when it was changed a
little: runs of 8 words that the row shares with it cover more than half of its words (Lambert et al. 2024, "Tulu 3",
arXiv 2411.15124, section 3.2), 16 characters in a script without spaces. Runs that many questions of a set share are
its wording, not its questions: they neither count nor have to be covered. A question with fewer than 8 words of its own
is only found by the first rule.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

from didact import files
from didact.datasets.dataset import Dataset
from didact.datasets.quality.contamination import (
    DEFAULT_NGRAM,
    Batch,
    ContaminationIndex,
    RunFilter,
    Words,
    batches,
    by_set,
    most_shared,
    own_words,
)
from didact.datasets.quality.remembered import remembered_facts
from didact.datasets.quality.texts import is_unspaced
from didact.datasets.quality.types import EvalText

NEAR_RUN = 8
NEAR_SHARE = 0.5
_SHOWN_WORDS = 160
_VERSION = 1
"""Raised when the same questions are found in other rows than before."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where training holds a question."""

    source: str
    row: int
    """Raw row in that source."""
    words: str
    """Some of those that it shares with the question, normalised."""
    changed: bool
    """Whether it is only held with changes."""

    def __str__(self) -> str:
        how = "much like it" if self.changed else "holds"
        return f"{self.source} row {self.row} {how}: {self.words[:_SHOWN_WORDS]}"


@dataclass(frozen=True, slots=True)
class _Near:
    """A question with the runs of words that are its own."""

    names: tuple[tuple[str, str], ...]
    """Set and item of each that asks it."""
    words: Words
    length: int
    """Words of a run."""
    own: frozenset[int]
    """Places of words that have to be covered."""


def find_seen(
    datasets: Sequence[Dataset], texts: Sequence[EvalText], ngram: int = DEFAULT_NGRAM
) -> dict[tuple[str, str], Seen]:
    """What `SeenIndex` finds in several data sets; rows that were searched for the same questions before are not again.

    Args:
        datasets: the rows that training saw, source by source; their fingerprints say which rows these are.
        texts: questions of any number of sets, in any order.
        ngram: as `ContaminationIndex` takes it.

    Returns:
        Set and item of each question that rows hold -> the first row that does, rather an unchanged one.
    """
    question = {
        "search": "seen",
        "version": _VERSION,
        "ngram": ngram,
        "near": [NEAR_RUN, NEAR_SHARE],
        "texts": files.fingerprint([[text.set_name, text.item, text.text] for text in texts]),
    }
    index = cache(partial(SeenIndex, texts, ngram))

    def search(dataset: Dataset) -> list[dict[str, Any]]:
        return [{"name": list(name), "seen": asdict(seen)} for name, seen in index().search(dataset).items()]

    found: dict[tuple[str, str], Seen] = {}
    for dataset in datasets:  # each on its own, so that another mixture of the same sources finds it
        for each in remembered_facts(dataset, question, partial(search, dataset)):
            (set_name, item), seen = each["name"], Seen(**each["seen"])
            before = found.get((set_name, item))
            if before is None or (before.changed and not seen.changed):
                found[set_name, item] = seen
    return found


def rules(ngram: int = DEFAULT_NGRAM) -> str:
    """When a row holds a question, in words."""
    return f"{ngram} words in a row, or runs of {NEAR_RUN} over more than {NEAR_SHARE:.0%} of a question"


class SeenIndex:
    """The questions of all tasks, ready to be looked for one by one."""

    def __init__(self, texts: Iterable[EvalText], ngram: int = DEFAULT_NGRAM) -> None:
        """Take the questions apart.

        Args:
            texts: questions of any number of sets, in any order.
            ngram: as `ContaminationIndex` takes it.
        """
        texts = list(texts)
        self._index = ContaminationIndex(texts, ngram)
        self._runs: dict[Words, list[tuple[_Near, int]]] = defaultdict(list)
        for set_name, questions in by_set(texts).items():
            for near, start in _runs_of(set_name, list(own_words(questions))):
                self._runs[near.words[start : start + near.length]].append((near, start))
        self._filter = RunFilter(self._runs)

    def search(self, dataset: Dataset) -> dict[tuple[str, str], Seen]:
        """Set and item of each question that training rows hold -> the first row that does, rather an unchanged one."""
        seen: dict[tuple[str, str], Seen] = {}
        for batch in batches(dataset.train):
            for row, match in self._index.held(batch):
                name = (match.set_name, match.item)
                if name not in seen or seen[name].changed:
                    seen[name] = Seen(dataset.name, batch.rows[row].row, match.words, changed=False)
            for row, near, words in self._near(batch):
                for name in near.names:
                    seen.setdefault(name, Seen(dataset.name, batch.rows[row].row, words, changed=True))
        return seen

    def _near(self, batch: Batch) -> Iterator[tuple[int, _Near, str]]:
        covered: dict[tuple[int, int], set[int]] = defaultdict(set)
        met: dict[int, _Near] = {}
        for position, length in self._filter.positions(batch.words):
            for near, start in self._runs.get(tuple(batch.words[position : position + length]), ()):
                met[id(near)] = near
                covered[batch.row_of(position), id(near)].update(range(start, start + length))
        for (row, number), places in covered.items():
            near = met[number]
            if len(places & near.own) > NEAR_SHARE * len(near.own):
                yield row, near, " ".join(near.words[place] for place in sorted(places))


def _runs_of(set_name: str, questions: Sequence[tuple[Words, tuple[str, ...]]]) -> Iterator[tuple[_Near, int]]:
    """Each question with the beginnings of its own runs."""
    asked = [(question, items, NEAR_RUN * (2 if is_unspaced(question) else 1)) for question, items in questions]
    shared: Mapping[Words, int] = Counter(run for question, _, length in asked for run in set(_runs(question, length)))
    most = most_shared(len(questions))
    for question, items, length in asked:
        runs = list(_runs(question, length))
        wording = {at + place for at, run in enumerate(runs) if shared[run] > most for place in range(length)}
        own = frozenset(range(len(question))) - wording
        if len(own) >= length:
            near = _Near(tuple((set_name, item) for item in items), question, length, own)
            yield from ((near, at) for at, run in enumerate(runs) if shared[run] <= most)


def _runs(question: Words, length: int) -> Iterator[Words]:
    return (question[start : start + length] for start in range(len(question) - length + 1))
