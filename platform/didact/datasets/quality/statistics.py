"""What the rows of a source look like: lengths, languages, roles, rationales. Read once; only numbers are kept."""

import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from didact.datasets.conversation import Conversation
from didact.datasets.forms.language import without_formulas
from didact.datasets.quality.texts import said, words

LANGUAGE_SAMPLE = 2000
"""Rows of a source whose language is told; more would not move a share by more than about two percent."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
HALF_OCTAVES = (0, *dict.fromkeys(round(2 ** (step / 2)) for step in range(37)))
"""Edges of the bins for characters and words, the same for all sources: 0, 1, 2, 3, 4, 6, 8, 11, 16, ... 262144."""
TURNS = tuple(range(1, 22))
"""Edges of the bins for turns."""
UNKNOWN = "und"
_WRITTEN_AS = {"wuu": "zh", "yue": "zh"}
"""Languages that short texts in common Chinese characters are taken for."""
_CLASSIFIED_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the rows of a source are."""

    total: int
    mean: float
    longest: int
    quantiles: dict[str, float]
    """`p05` to `p99`: exact, not estimated."""
    edges: tuple[int, ...]
    """Bin i holds lengths from `edges[i]` to below `edges[i + 1]`; the last one everything from its edge on."""
    counts: tuple[int, ...]
    """Rows in each bin."""


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """Figures of one source. System messages count among the roles alone: many rows may share one."""

    name: str
    num_rows: int
    characters: Lengths
    words: Lengths
    """A character of a script without spaces counts as a word."""
    turns: Lengths
    """Messages of user and assistant."""
    roles: dict[str, int]
    """Role -> messages."""
    languages: dict[str, float]
    """ISO 639-1 code -> share of the sampled rows, the most frequent first; `und` for rows without letters. Told from
    what user and assistant say, formulas left out."""
    languages_sampled: int
    """Rows behind `languages`: at most 2,000, those of the lowest hash of name and row, so the same on any machine."""
    share_with_system: float
    share_with_answer: float
    """Rows with a short checkable answer."""
    share_with_rationale: float

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def source_statistics(name: str, conversations: Iterable[Conversation]) -> SourceStatistics:
    """Read the rows of a source once, in any order.

    Args:
        name: the source's.
        conversations: its rows.
    """
    characters, words_, turns = array("q"), array("q"), array("q")
    roles: Counter[str] = Counter()
    with_: Counter[str] = Counter()
    sample: list[tuple[int, str]] = []
    for conversation in conversations:
        messages = conversation.messages
        spoken = said(messages)
        characters.append(sum(len(message.written) for message in spoken))
        words_.append(sum(len(words(message.written)) for message in spoken))
        turns.append(len(spoken))
        roles.update(message.role for message in messages)
        with_["system"] += messages[0].role == "system"
        with_["answer"] += conversation.answer is not None
        with_["rationale"] += conversation.rationale is not None
        _sample(sample, name, conversation)
    count = max(1, len(characters))
    return SourceStatistics(
        name=name,
        num_rows=len(characters),
        characters=_lengths(characters, HALF_OCTAVES),
        words=_lengths(words_, HALF_OCTAVES),
        turns=_lengths(turns, TURNS),
        roles=dict(roles),
        languages=language_shares(text for _, text in sample),
        languages_sampled=len(sample),
        share_with_system=with_["system"] / count,
        share_with_answer=with_["answer"] / count,
        share_with_rationale=with_["rationale"] / count,
    )


def language_shares(texts: Iterable[str]) -> dict[str, float]:
    """Language -> share of the texts, the most frequent first; told by py3langid from each text as a whole."""
    from py3langid import classify  # reads its model, which only this needs

    counts: Counter[str] = Counter()
    for text in texts:
        found = classify(text)[0] if any(character.isalpha() for character in text) else UNKNOWN
        counts[_WRITTEN_AS.get(found, found)] += 1
    total = max(1, counts.total())
    return {language: count / total for language, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))}


def _sample(sample: list[tuple[int, str]], name: str, conversation: Conversation) -> None:
    """Keep the beginnings of the rows of lowest rank, as a heap of the highest kept one."""
    rank = int.from_bytes(hashlib.blake2b(f"{name}/{conversation.row}".encode(), digest_size=7).digest())
    if len(sample) == LANGUAGE_SAMPLE and -rank <= sample[0][0]:
        return
    text = without_formulas("\n".join(message.content for message in said(conversation.messages)))[
        :_CLASSIFIED_CHARACTERS
    ]
    if len(sample) < LANGUAGE_SAMPLE:
        heapq.heappush(sample, (-rank, text))
    else:
        heapq.heappushpop(sample, (-rank, text))


def _lengths(values: "array[int]", edges: Sequence[int]) -> Lengths:
    numbers = np.frombuffer(values, np.int64) if len(values) else np.zeros(0, np.int64)
    bins = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 1)
    quantiles = np.quantile(numbers, QUANTILES) if len(numbers) else np.zeros(len(QUANTILES))
    return Lengths(
        total=int(numbers.sum()),
        mean=float(numbers.mean()) if len(numbers) else 0.0,
        longest=int(numbers.max(initial=0)),
        quantiles={f"p{round(100 * q):02d}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        edges=tuple(edges),
        counts=tuple(int(count) for count in np.bincount(bins, minlength=len(edges))),
    )
