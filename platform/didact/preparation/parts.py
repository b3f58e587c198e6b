"""The token cache: a source is tokenized once, and opened from disk ever after.

The address is a digest of everything that decides the tokens, so a change of data, template, tokenizer or policy makes
another folder and nothing stale is ever read.
"""

import gc
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from didact import files
from didact.cache.columns import within
from didact.cache.entry import CacheEntry
from didact.datasets.conversation import Conversation
from didact.datasets.dataset import Dataset
from didact.datasets.load import store
from didact.datasets.places.generated import PREFIX as GENERATED
from didact.datasets.sources.conversion import ConversationBatch, convert
from didact.datasets.sources.opening import OpenedSource
from didact.datasets.stored.fill import ConversionJob, Converter
from didact.datasets.stored.reader import StoredConversations, stored_batches
from didact.datasets.stored.writer import ConversationWriter
from didact.spec import SourceSpec, TokensSpec
from didact.tokens.encode import encode_all
from didact.tokens.shards import TokenWriter
from didact.tokens.template import TemplateContract

FORMAT_VERSION = 5
"""Raised when the files' layout or the rules of `encode` change."""


@dataclass(frozen=True)
class Encoder:
    """Everything that turns conversations into tokens."""

    tokenizer: PreTrainedTokenizerBase
    contract: TemplateContract
    tokens: TokensSpec

    def address(self, conversations: str, choice: str | None) -> str:
        """Hex digest of everything that decides the samples of a source.

        Args:
            conversations: address of the source's conversations.
            choice: which of them are tokenized, where not all are.
        """
        return files.fingerprint(
            {
                "format": FORMAT_VERSION,
                "conversations": conversations,
                "choice": choice,
                "contract": self.contract.fingerprint,
                "max_length": self.tokens.max_length,
                "truncation": self.tokens.truncation,
                "loss_on": self.tokens.loss_on,
            }
        )


@lru_cache(maxsize=1)
def received(encoder: bytes) -> Encoder:
    """A pickled encoder that was sent to this process with each of its parts, unpacked once."""
    return pickle.loads(encoder)


@dataclass(frozen=True, slots=True)
class PartJob:
    """What is to be made of one part, as a value that can be sent to another node."""

    key: str
    tokens: CacheEntry | None
    """Where the tokens go; None for conversations only."""
    conversations: CacheEntry
    conversion: ConversionJob | None = None
    """How the conversations are made; None where they are stored already."""
    chosen: np.ndarray | None = None
    """int64: positions, among the part's stored rows, of those that are tokenized; None for all."""
    size: int = 0
    """Bytes that are read, as far as that is known."""


@dataclass(frozen=True, slots=True)
class PartDone:
    """What a job did, for the progress line."""

    rows: int
    rejected: int
    tokens: int


Runner = Callable[[Sequence[PartJob], Encoder], Iterator[PartDone]]
"""Does jobs somewhere, in any order."""


def run_here(jobs: Sequence[PartJob], encoder: Encoder) -> Iterator[PartDone]:
    """Do jobs one after the other in this process."""
    return (run_job(job, encoder) for job in jobs)


def run_job(job: PartJob, encoder: Encoder) -> PartDone:
    """Make one part in a single pass: what is read is stored as conversations and as tokens before the next batch."""
    rows = rejected = num_tokens = 0
    with ExitStack() as stack:
        stack.enter_context(_libraries_out_of_sight())
        told = stack.enter_context(job.conversion.writer()) if job.conversion else None
        tokenized = stack.enter_context(TokenWriter(job.tokens, job.key)) if job.tokens else None
        for position, stored, batch in _batches(job, told):
            if tokenized is not None:
                positions, wanted = _chosen(job.chosen, position, stored)
                encoded = encode_all(wanted, encoder.tokenizer, encoder.contract, encoder.tokens)
                tokenized.add(positions, wanted, encoded)
                num_tokens = tokenized.num_tokens
            rows, rejected = rows + batch.num_rows, rejected + len(batch.rejects)
    return PartDone(rows, rejected, num_tokens)


def prepare_source(
    opened: OpenedSource, source: SourceSpec, seed: int, encoder: Encoder, cache_dir: Path, run: Runner = run_here
) -> StoredConversations:
    """Convert a source as far as the cache does not hold it; see `converter`.

    Args:
        opened: the source.
        source: its entry in the recipe.
        seed: `data.seed`.
        encoder: makes tokens.
        cache_dir: root of the token cache.
        run: does the work.
    """
    return store(opened, source, seed, converter(source, encoder, cache_dir, run))


def converter(source: SourceSpec, encoder: Encoder, cache_dir: Path, run: Runner = run_here) -> Converter:
    """Converts the parts of a source; where all rows that it stores are used, it tokenizes them in the same pass.

    Args:
        source: its entry in the recipe.
        encoder: makes tokens.
        cache_dir: root of the token cache.
        run: does the work.
    """
    uses_all = source.max_rows is None or source.path.startswith(GENERATED)

    def convert_parts(keys: Sequence[str], jobs: Sequence[ConversionJob]) -> None:
        entry = jobs[0].entry
        tokens, also = _entry(cache_dir, encoder, entry, None), set[str]()
        with ExitStack() as stack:
            if all(job.texts and (uses_all or job.kept is not None) for job in jobs):
                stack.enter_context(tokens.lock())
                also.update(tokens.missing(list(keys)))
            given = [
                PartJob(job.key, tokens if job.key in also else None, entry, job, size=job.part.size) for job in jobs
            ]
            for _ in run(given, encoder):
                pass

    return convert_parts


def tokenize(dataset: Dataset, encoder: Encoder, cache_dir: Path, run: Runner = run_here) -> CacheEntry:
    """The samples of all rows that a data set trains on or holds out, made now unless the cache holds them.

    Args:
        dataset: the data set, as `load_dataset` returns it.
        encoder: makes tokens.
        cache_dir: root of the token cache.
        run: does the work.
    """
    stored = dataset.stored
    choice = None if dataset.chosen is None else sha256(dataset.chosen.tobytes()).hexdigest()
    entry = _entry(cache_dir, encoder, stored.entry, choice)
    starts = stored.first_positions

    def job(number: int, key: str) -> PartJob:
        chosen = None
        if dataset.chosen is not None:
            chosen = within(dataset.chosen, starts[number], starts[number + 1]) - starts[number]
        size = sum(shard.size for shard in stored.records[number].shards)
        return PartJob(key, entry, stored.entry, chosen=chosen, size=size)

    def make(missing: list[str]) -> None:
        wanted = set(missing)
        jobs = [job(number, record.key) for number, record in enumerate(stored.records) if record.key in wanted]
        for _ in run(jobs, encoder):
            pass

    facts = {**stored.entry.facts(), "conversations": stored.entry.address, "contract": encoder.contract.fingerprint}
    entry.fill([record.key for record in stored.records], facts, make)
    return entry


def _entry(cache_dir: Path, encoder: Encoder, conversations: CacheEntry, choice: str | None) -> CacheEntry:
    return CacheEntry(cache_dir / "tokens" / encoder.address(conversations.address, choice))


@contextmanager
def _libraries_out_of_sight() -> Iterator[None]:
    """Keep Python's collector from going through what was there before.

    Rows are many small objects, so collections are due all the time, and each full one looks at the 600,000 objects of
    the loaded libraries: a sixth of the time of a part.
    """
    theirs = _others_freeze()
    gc.freeze()
    try:
        yield
    finally:
        if not theirs:
            gc.unfreeze()


@cache
def _others_freeze() -> bool:
    """Whether others had objects frozen before the first part; asked once, since Python counts them one by one."""
    return gc.get_freeze_count() > 0


def _batches(
    job: PartJob, told: ConversationWriter | None
) -> Iterator[tuple[int, Sequence[Conversation], ConversationBatch]]:
    """Each batch with the rows of it that are stored, and the position of their first among the part's stored rows."""
    if job.conversion is None or told is None:
        for start, stored in stored_batches(job.conversations, job.key, job.chosen):
            yield start, stored, ConversationBatch(stored)
        return
    start = 0
    for batch in convert(job.conversion.part, job.conversion.settings):
        stored = told.add(batch)
        yield start, stored, batch
        start += len(stored)


def _chosen(
    chosen: np.ndarray | None, start: int, accepted: Sequence[Conversation]
) -> tuple[Sequence[int], Sequence[Conversation]]:
    if chosen is None:
        return range(start, start + len(accepted)), accepted
    here = within(chosen, start, start + len(accepted)).tolist()
    return here, [accepted[position - start] for position in here]
