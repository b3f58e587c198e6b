"""Shares that follow training losses (`data.online_mixing`): decided on the way, and part of each checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from didact.mixtures import online_shares, quantise
from didact.tokens import StepLoader
from didact.training.world import World

_PIECES, _SEEN = "online_mixing.pieces", "online_mixing.seen"


class OnlineMixing:
    """The loader of a run, whose mixture gets a new piece after every `every_steps` steps.

    A decision depends on losses before it and on nothing else, so a run that goes on from a checkpoint decides as the
    unbroken one. Worker 0 decides, and all follow.
    """

    def __init__(self, loader: StepLoader, world: World) -> None:
        self.loader = loader
        """With all pieces that are decided."""
        self._rule, self._world = loader.mixture.online, world
        self._first = len(loader.mixture.pieces)
        self._seen: list[list[tuple[float, float]]] = []
        self._step = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources, in the mixture's order."""
        return self.loader.mixture.names

    def observe(self, done: int, metrics: Mapping[str, float], targets: Sequence[int]) -> dict[str, int] | None:
        """Take in a finished step, and decide where it is time to.

        Args:
            done: steps that are done.
            metrics: of the step, `train/<source>/loss` among them for each source that was in it.
            targets: of the step, by source in the mixture's order.

        Returns:
            Samples that the next steps draw of each source, where that was decided.
        """
        if self._rule is None:
            return None
        seen = [
            (metrics.get(f"train/{name}/loss", math.nan), float(count))
            for name, count in zip(self.names, targets, strict=True)
        ]
        self._step = done
        self._seen = [*self._seen, seen][-self._rule.window :]
        if done % self._rule.every_steps:
            return None
        batch = self.loader.global_batch_size
        counts = self._world.agree(self._decided(self._rule.every_steps * batch))
        self._add(done * batch, counts)
        return dict(zip(self.names, counts, strict=True))

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds: int64 [pieces, 1 + sources], start and counts; float64 [steps, sources, 2]."""
        if self._rule is None:
            return {}
        mixture = self.loader.mixture
        pieces = [[piece.start, *piece.counts] for piece in mixture.pieces[self._first :]]
        return {
            _PIECES: torch.tensor(pieces, dtype=torch.int64).reshape(-1, 1 + len(mixture.names)),
            _SEEN: torch.tensor(self._seen, dtype=torch.float64).reshape(-1, len(mixture.names), 2),
        }

    def load_state(self, done: int, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put back what was decided and seen until `done` steps; returns the rest of a checkpoint's state."""
        if self._rule is not None and _PIECES in state:
            for start, *counts in state[_PIECES].tolist():
                self._add(start, counts)
            self._seen = [[(loss, count) for loss, count in step] for step in state[_SEEN].tolist()]
        self._step = done
        return {name: tensor for name, tensor in state.items() if name not in (_PIECES, _SEEN)}

    def _add(self, start: int, counts: Sequence[int]) -> None:
        self.loader = replace(self.loader, mixture=self.loader.mixture.then(start, counts))

    def _decided(self, num_samples: int) -> tuple[int, ...]:
        assert self._rule is not None
        first = self.loader.mixture.pieces[0].counts
        prior = [count / sum(first) for count in first]
        begins = self._step - len(self._seen) + 1
        points = [
            [
                (float(begins + place), step[source][0], step[source][1])
                for place, step in enumerate(self._seen)
                if step[source][1] and math.isfinite(step[source][0])
            ]
            for source in range(len(prior))
        ]
        return quantise(online_shares(prior, points, self._rule), num_samples)
