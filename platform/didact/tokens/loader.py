"""The batches of any step, for any worker of any number of workers, as a pure function."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from didact.errors import DataError
from didact.mixtures import Mixture, SampleId
from didact.tokens.batches import SHORTEST_SHARED, pack, pad
from didact.tokens.table import TokenTable
from didact.tokens.types import Batch, StepBatches


@dataclass(frozen=True)
class StepLoader:
    """Step s is made of mixture positions [s * global_batch_size, (s + 1) * global_batch_size), whoever computes it.

    Raises:
        DataError: the mixture was built for other tables.
    """

    tables: Sequence[TokenTable]
    """One table for each source, in the mixture's order."""
    mixture: Mixture
    global_batch_size: int
    """Samples per step, over all workers."""
    micro_batch_size: int
    """Samples per forward pass."""
    packing: bool
    """Micro-batches as one packed row, else padded."""
    pad_id: int
    """Token that fills padded rows."""
    share_prefixes: bool = False
    """First tokens that samples of a packed row have in common are there once; see `pack`."""

    def __post_init__(self) -> None:
        names, rows = tuple(table.name for table in self.tables), tuple(len(table) for table in self.tables)
        if (names, rows) != (self.mixture.names, self.mixture.rows):
            expected, found = zip(self.mixture.names, self.mixture.rows, strict=True), zip(names, rows, strict=True)
            raise DataError(f"the mixture is of {list(expected)} (source, samples), but the tables are {list(found)}")

    def step(self, step: int, rank: int = 0, world_size: int = 1, *, even: bool = False) -> StepBatches:
        """The micro-batches of worker `rank` for optimizer step `step` (from 0), and the figures of the global batch.

        Args:
            step: optimizer step.
            rank: this worker.
            world_size: number of workers.
            even: give every worker equally many micro-batches, because their forward passes communicate. A smaller
                share is filled up with the step's shortest sample, from which nothing is learned.

        Raises:
            ValueError: `step` is negative, or `rank` is not one of `world_size` workers.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; expected 0 to {world_size - 1}")
        ids = self.mixture.ids(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        lengths = [self.tables[sample.source].length(sample.row) for sample in ids]
        share = deal(lengths, world_size)[rank]
        size = self.micro_batch_size
        parts = [[ids[position] for position in share[start : start + size]] for start in range(0, len(share), size)]
        if self.share_prefixes:
            parts = [self._alike_together(part) for part in parts]
        mine, sources = [self._batch(part) for part in parts], [self._sources(part) for part in parts]
        if even:
            largest_share = -(-len(ids) // world_size)  # `deal` always fills one
            shortest = ids[lengths.index(min(lengths))]
            missing = -(-largest_share // size) - len(mine)
            mine += [self._batch([shortest]).without_targets()] * missing
            sources += [np.zeros(0, np.int64)] * missing
        targets = [0] * len(self.tables)
        for sample in ids:
            targets[sample.source] += self.tables[sample.source].num_supervised(sample.row)
        return StepBatches(
            micro_batches=tuple(mine),
            num_supervised=sum(targets),
            num_tokens=sum(lengths),
            sample_ids=tuple(self._name(sample) for sample in ids),
            targets_of=tuple(targets),
            sources=tuple(sources),
        )

    def _batch(self, ids: Sequence[SampleId]) -> Batch:
        samples = [self.tables[sample.source][sample.row] for sample in ids]
        return pack(samples, share_prefixes=self.share_prefixes) if self.packing else pad(samples, self.pad_id)

    def _alike_together(self, ids: Sequence[SampleId]) -> list[SampleId]:
        """Those that begin alike one after the other, in the order of the first of each kind."""
        kinds: dict[bytes, list[SampleId]] = {}
        for sample in ids:
            first = self.tables[sample.source][sample.row].ids[:SHORTEST_SHARED]
            kinds.setdefault(first.tobytes(), []).append(sample)
        return [sample for kind in kinds.values() for sample in kind]

    def _sources(self, ids: Sequence[SampleId]) -> np.ndarray:
        counts = [self.tables[sample.source].num_supervised(sample.row) for sample in ids]
        return np.repeat(np.array([sample.source for sample in ids], np.int64), counts)

    def _name(self, sample: SampleId) -> str:
        table = self.tables[sample.source]
        return f"{table.name}/{table.row(sample.row)}"


def deal(lengths: Sequence[int], world_size: int) -> tuple[tuple[int, ...], ...]:
    """Positions of a batch -> one share a worker, alike in tokens, each ordered from long to short.

    The longest goes first to the worker with the fewest tokens (Graham 1969, "Bounds on multiprocessing timing
    anomalies"), the lower rank on a tie; no share holds more than ceil(batch / world_size) samples.
    """
    capacity = -(-len(lengths) // world_size)
    shares: list[list[int]] = [[] for _ in range(world_size)]
    tokens = [0] * world_size
    for position in sorted(range(len(lengths)), key=lambda position: (-lengths[position], position)):
        open_ranks = [rank for rank in range(world_size) if len(shares[rank]) < capacity]
        rank = min(open_ranks, key=lambda rank: (tokens[rank], rank))
        shares[rank].append(position)
        tokens[rank] += lengths[position]
    return tuple(tuple(share) for share in shares)
