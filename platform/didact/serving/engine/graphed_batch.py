"""The shared batch where decoding steps are recorded as CUDA graphs."""

import torch
from transformers import PreTrainedModel
from typing_extensions import override

from didact.models.adapter import RowSlots
from didact.serving.engine.batch import DecodingBatch
from didact.serving.engine.step_graphs import StepGraphs


class GraphedBatch(DecodingBatch):
    """Rows that others have joined after their prompts were read. Mask and positions lag behind recorded steps."""

    takes_drafts = False

    def __init__(self, base: PreTrainedModel, slots: RowSlots | None, graphs: StepGraphs) -> None:
        super().__init__(base, [], slots)
        self._graphs = graphs
        device = base.device
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=device)
        self._positions = torch.zeros(0, dtype=torch.long, device=device)
        self._steps = 0
        """Recorded steps since mask and positions were true."""
        self._left = 0
        """Steps for which what was laid in holds."""

    @override
    def step(self) -> torch.Tensor:
        if not self._graphs.on:
            self._catch_up()
            return super().step()
        if self._left == 0 or self._graphs.outdated:
            self._catch_up()
            self._left = self._graphs.lay_in(self._mask, self._positions, [row.slot for row in self.rows])
        logits = self._graphs.step([row.answer[-1] for row in self.rows], self._plain_step)
        if logits is None:
            self._left = 0
            self._catch_up()
            return super().step()
        self._steps += 1
        self._left -= 1
        return logits

    @override
    def keep_unfinished(self) -> None:
        if not any(row.done for row in self.rows):
            return
        self._catch_up()
        self._unread = self._unread_positions = torch.empty(len(self.rows), 0, device=self._mask.device)
        super().keep_unfinished()
        self._left = 0

    @override
    def join(self, other: DecodingBatch) -> None:
        self._catch_up()
        self._left = 0
        if not self.rows:
            self._cache = self._graphs.cache(len(other._cache.layers))
        super().join(other)

    def release(self) -> None:
        """Give all memory back: the batch has failed."""
        self._graphs.release()

    def _catch_up(self) -> None:
        if self._steps:
            self._mask = torch.nn.functional.pad(self._mask, (0, self._steps), value=1)
            self._positions = self._positions + self._steps
            for layer in self._cache.layers:
                layer.passed(self._steps)
            self._steps = 0

    def _plain_step(self) -> torch.Tensor:
        """The next step as the twin computes it; nothing is remembered of it but what the recorded one writes too."""
        self._catch_up()
        before = self._mask, self._positions
        logits = super().step()
        self._mask, self._positions = before
        for layer in self._cache.layers:
            layer.passed(-1)
        return logits
