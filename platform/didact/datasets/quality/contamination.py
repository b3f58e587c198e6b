"""Training rows that hold questions of an evaluation: found, then dropped or refused.

A row is contaminated when it shares 13 words in a row with a question (Brown et al. 2020, "Language Models are Few-Shot
Learners", appendix C), or 26 characters in a script without spaces. A shorter question must be there as a whole; one of
fewer than 8 words (16 characters) must also be one or more whole sentences of a user's turn, since so few words meet by
chance. Sentences that many questions of a set share are its instructions, not its questions, and do not count.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from didact.datasets.conversation import Conversation, Message
from didact.datasets.dataset import Dataset
from didact.datasets.quality.marks import SHOWN, Marks
from didact.datasets.quality.texts import is_unspaced, sentences, words
from didact.datasets.quality.types import EvalText, Kept, Match
from didact.errors import DataError

DEFAULT_NGRAM = 13
SHORTEST_ANYWHERE = 8
"""Questions of fewer words are only found as whole sentences of a user."""
_BATCH_ROWS = 256
_MOST_SHARED = 10
_REASON = "contaminated:"


Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Probe:
    """Words whose presence tells that a question is there."""

    set_name: str
    items: tuple[str, ...]
    """All that ask the same."""
    whole_sentences: bool


class ContaminationIndex:
    """The questions of all evaluation sets, ready to be looked for."""

    def __init__(self, texts: Iterable[EvalText], ngram: int = DEFAULT_NGRAM) -> None:
        """Take the questions apart.

        Args:
            texts: questions of any number of sets, in any order.
            ngram: words in a row that a row and a question must share, at least 8.
        """
        self.num_questions: dict[str, int] = {}
        """Evaluation set -> different questions."""
        self._probes: dict[Words, list[_Probe]] = defaultdict(list)
        for set_name, questions in by_set(texts).items():
            self.num_questions[set_name] = len(questions)
            for question, items in own_words(questions):
                for part, whole_sentences in _parts(question, ngram):
                    self._probes[part].append(_Probe(set_name, items, whole_sentences))
        self._filter = RunFilter(self._probes)

    def search(self, conversations: Iterable[Conversation]) -> Iterator[tuple[Match, ...]]:
        """For each conversation one match for every evaluation set it holds a question of, in order of the sets."""
        for batch in batches(conversations):
            found: list[dict[str, Match]] = [{} for _ in batch.rows]
            for row, probe, part in self._held(batch):
                found[row].setdefault(probe.set_name, Match(probe.set_name, probe.items[0], " ".join(part)))
            for matches in found:
                yield tuple(matches[name] for name in self.num_questions if name in matches)

    def held(self, batch: "Batch") -> Iterator[tuple[int, Match]]:
        """Every question that rows of a batch hold, with the row's place in it; the same one maybe several times."""
        for row, probe, part in self._held(batch):
            words_of_it = " ".join(part)
            yield from ((row, Match(probe.set_name, item, words_of_it)) for item in probe.items)

    def _held(self, batch: "Batch") -> Iterator[tuple[int, _Probe, Words]]:
        for position, length in self._filter.positions(batch.words):
            row, part = batch.row_of(position), tuple(batch.words[position : position + length])
            for probe in self._probes.get(part, ()):
                if _counts(probe, part, batch.rows[row]):
                    yield row, probe, part


@dataclass(frozen=True, slots=True)
class Batch:
    """Some conversations as one list of words, no run of words crossing from one message into the next."""

    rows: Sequence[Conversation]
    words: Sequence[str]
    starts: np.ndarray
    """Where each row's words begin."""

    def row_of(self, position: int) -> int:
        """The row that a word is of."""
        return int(np.searchsorted(self.starts, position, side="right")) - 1


def batches(conversations: Iterable[Conversation]) -> Iterator[Batch]:
    """Conversations some hundred at a time."""
    stream = iter(conversations)
    while rows := list(islice(stream, _BATCH_ROWS)):
        yield Batch(rows, *_flat(rows))


class RunFilter:
    """Where in a list of words a known run of words may begin: rolling hashes, a few nanoseconds a word and length."""

    def __init__(self, runs: Iterable[Words]) -> None:
        by_length: dict[int, list[Words]] = defaultdict(list)
        for run in runs:
            by_length[len(run)].append(run)
        self._values: dict[str, int] = {}
        """Word -> a random number; words of no question have none, so texts cost no memory."""
        random = np.random.default_rng(0)
        for word in dict.fromkeys(word for runs in by_length.values() for run in runs for word in run):
            self._values[word] = int(random.integers(1, 1 << 63))
        self._tables: dict[int, np.ndarray] = {}
        for length in sorted(by_length, reverse=True):
            bits = max(10, (8 * len(by_length[length])).bit_length())
            table = np.zeros(1 << bits, bool)
            values = self._numbers([word for run in by_length[length] for word in run])
            hashes = _rolling(values, length)[::length]
            table[hashes >> np.uint64(64 - bits)] = True
            self._tables[length] = table

    def positions(self, all_words: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Begin and length of runs that may be known, longer ones first."""
        values = self._numbers(all_words)
        for length, table in self._tables.items():
            if length <= len(values):
                hashes = _rolling(values, length)
                bits = len(table).bit_length() - 1
                for position in np.flatnonzero(table[hashes >> np.uint64(64 - bits)]):
                    yield int(position), length

    def _numbers(self, all_words: Sequence[str]) -> np.ndarray:
        values = self._values
        return np.fromiter((values.get(word, 0) for word in all_words), np.uint64, len(all_words))


_BASE = 0x9E3779B97F4A7C15
_INVERSE_BASE = pow(_BASE, -1, 1 << 64)


def _rolling(values: np.ndarray, length: int) -> np.ndarray:
    """uint64 [values - length + 1]: polynomial hash of every run of `length` values, modulo 2**64, then mixed."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * _powers(_BASE, len(values)), dtype=np.uint64)])
    runs = (sums[length:] - sums[:-length]) * _powers(_INVERSE_BASE, len(values))[: len(values) - length + 1]
    return (runs ^ (runs >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _flat(batch: Sequence[Conversation]) -> tuple[list[str], np.ndarray]:
    """All words of all rows, no run crossing from one message into the next; and where each row begins."""
    all_words: list[str] = []
    starts = []
    for conversation in batch:
        starts.append(len(all_words))
        for message in conversation.messages:
            all_words += words(message.written)
            all_words.append("")
    return all_words, np.array(starts, np.int64)


def by_set(texts: Iterable[EvalText]) -> dict[str, dict[tuple[Words, ...], list[str]]]:
    """Set -> sentences of each different question -> the items that ask it."""
    sets: dict[str, dict[tuple[Words, ...], list[str]]] = defaultdict(dict)
    for text in texts:
        parts = tuple(tuple(sentence) for sentence in sentences(text.text))
        if parts:
            sets[text.set_name].setdefault(parts, []).append(text.item)
    return sets


def most_shared(num_questions: int) -> int:
    """Questions of a set that may share words before these are its instructions."""
    return min(_MOST_SHARED, max(1, num_questions // _MOST_SHARED))


def own_words(questions: dict[tuple[Words, ...], list[str]]) -> Iterator[tuple[Words, tuple[str, ...]]]:
    """The longest stretch of each question's sentences that is not instruction to many of them, with its items."""
    shared = Counter(sentence for parts in questions for sentence in set(parts))
    most = most_shared(len(questions))
    for parts, items in questions.items():
        stretches: list[Words] = [()]
        for sentence in parts:
            if shared[sentence] > most:
                stretches.append(())
            else:
                stretches[-1] += sentence
        own = max(stretches, key=len)
        yield own or tuple(word for sentence in parts for word in sentence), tuple(items)


def _parts(question: Words, ngram: int) -> Iterator[tuple[Words, bool]]:
    """The runs of words that give a question away, and whether they must be whole sentences of a user."""
    factor = 2 if is_unspaced(question) else 1
    length = factor * ngram
    if len(question) < length:
        yield question, len(question) < factor * SHORTEST_ANYWHERE
    for start in range(len(question) - length + 1):
        yield question[start : start + length], False


def _counts(probe: _Probe, part: Words, conversation: Conversation) -> bool:
    return not probe.whole_sentences or any(
        message.role == "user" and _has_sentences(part, message) for message in conversation.messages
    )


def _has_sentences(part: Words, message: Message) -> bool:
    """Whether one or more whole sentences of a message are exactly these words."""
    parts = list(sentences(message.content))
    for first in range(len(parts)):
        whole: list[str] = []
        for sentence in parts[first:]:
            whole += sentence
            if len(whole) >= len(part):
                break
        if tuple(whole) == part:
            return True
    return False


def find_contaminated(dataset: Dataset, index: ContaminationIndex) -> Kept:
    """The training rows that hold no question; the others go for the reason `contaminated:<evaluation set>`."""
    marks = Marks(dataset)
    for position, matches in enumerate(index.search(dataset.train)):
        if matches:
            marks.drop(position, {f"{_REASON}{match.set_name}": match for match in matches})
    return marks.kept()


def evaluation_set(reason: str) -> str | None:
    """The evaluation set of a reason; None for a reason of another kind."""
    return reason.removeprefix(_REASON) if reason.startswith(_REASON) else None


def refuse_contaminated(datasets: Sequence[Dataset], kept: Sequence[Kept]) -> None:
    """Stop where a row would have to go.

    Raises:
        DataError: counts for each data set, most first, and for each the longest of the words found in its rows.
    """
    bad = [(dataset.name, each) for dataset, each in zip(datasets, kept, strict=True) if each.found]
    if not bad:
        return
    lines = []
    for name, each in sorted(bad, key=lambda pair: -sum(pair[1].found.values())):
        counts = (f"{count:,} rows with questions of {evaluation_set(reason)}" for reason, count in each.found.items())
        lines.append(f"  - {name}: {', '.join(counts)}")
        matches = [(found.row, found.cause) for found in each.examples if isinstance(found.cause, Match)]
        longest = sorted(matches, key=lambda pair: -len(pair[1].words))[:SHOWN]
        lines += [f"      row {row}: {match.set_name} {match.item}: {match.words!r}" for row, match in longest]
    raise DataError(
        "training rows hold questions of an evaluation; set data.contamination.policy to drop, or remove the sources:\n"
        + "\n".join(lines)
    )
