"""The base as a judge of rows: losses of samples, written into the cache where they were asked for."""

from typing import Any

import numpy as np
import torch

from didact.cache.entry import PartRecord, new_file, shard_of
from didact.devices import this_machine
from didact.evaluation.losses import PAD_ID, sample_losses
from didact.models import load_base, supports_packing
from didact.preparation.row_scores import ScoreJob
from didact.spec import FinetuneSpec
from didact.tokens import Sample, open_table

_BATCH = 8


class ScoringModel:
    """The base, which tells how well it knows samples."""

    def __init__(self, spec: FinetuneSpec, device: torch.device | None = None) -> None:
        """Load the base of a recipe, as its runs hold it.

        Args:
            spec: the recipe.
            device: where it computes; None for this machine's GPU, where it has one and the recipe's workers use it.
        """
        on_cpu = spec.placement.device == "cpu"
        self._model: Any = load_base(
            spec.model, device or (torch.device("cpu") if on_cpu else this_machine().device), shared=True
        )
        self._packing = spec.packing and supports_packing(self._model)

    def score(self, job: ScoreJob) -> int:
        """Compute a job's losses and store them; gives the number of its samples."""
        table = open_table(job.table, job.source)
        samples = [_asked(table[index], job.before) for index in range(job.start, job.stop)]
        losses, counts = sample_losses(self._model, samples, pad_id=PAD_ID, packing=self._packing, batch_size=_BATCH)
        path = job.entry.folder / f"{job.key}.losses.npy"
        with new_file(path) as beside, beside.open("wb") as stream:
            np.save(stream, np.stack([losses.numpy(), counts.double().numpy()]))
        job.entry.add(PartRecord(job.key, (shard_of(path, len(samples)),)))
        return len(samples)


def _asked(sample: Sample, before: int | None) -> Sample:
    """A sample, or the answer alone behind one token, of which every token is learned."""
    if before is None:
        return sample
    learned = sample.ids[sample.mask]
    ids = np.concatenate([np.array([before], learned.dtype), learned])
    return Sample(ids, np.arange(len(ids)) > 0)
