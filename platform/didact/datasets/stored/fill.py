"""Filling an entry of the cache with conversations, part by part, wherever the work is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from didact.cache.entry import CacheEntry
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.sources.conversion import Part, convert
from didact.datasets.stored.writer import ConversationWriter


@dataclass(frozen=True, slots=True)
class ConversionJob:
    """One part of a source to be converted."""

    key: str
    entry: CacheEntry
    """Where its conversations go."""
    part: Part
    settings: RowSettings
    """What decides the words of its conversations."""
    texts: bool = True
    """Whether texts are stored, and not keys alone."""
    kept: np.ndarray | None = None
    """int64: positions, among the part's accepted rows, of those that are stored; None for all."""

    def writer(self) -> ConversationWriter:
        """Takes the part's batches."""
        return ConversationWriter(self.entry, self.key, texts=self.texts, kept=self.kept)


Converter = Callable[[Sequence[str], Sequence[ConversionJob]], None]
"""Does jobs of one entry, somewhere and in any order. Takes the keys of all its parts as well, in order."""


def convert_here(keys: Sequence[str], jobs: Sequence[ConversionJob]) -> None:
    """Do jobs one after the other in this process."""
    for job in jobs:
        with job.writer() as writer:
            for batch in convert(job.part, job.settings):
                writer.add(batch)
