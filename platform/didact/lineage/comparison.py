"""A run beside the one that was to be the same: equal to the bit, or where and how far they part."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact.display import Shown
from didact.files import fingerprint, sha256_file
from didact.lineage.reproduction import RECORD, Reproduction
from didact.runs import Run, recorded_adapter
from didact.tracking import StepRecord, effective_records

_LOSS = "train/loss"
_SHOWN_STEPS = 12


@dataclass(frozen=True, slots=True)
class StepPair:
    """One step of both runs."""

    step: int
    before: float | None
    """Training loss of the run that was done again."""
    now: float | None
    same_samples: bool

    @property
    def difference(self) -> float:
        """How far the losses are apart; infinite where one is missing or no number."""
        if self.before is None or self.now is None:
            return math.inf
        apart = abs(self.before - self.now)
        return 0.0 if self.before == self.now else math.inf if math.isnan(apart) else apart


@dataclass(frozen=True, slots=True)
class Comparison(Shown):
    """What came out."""

    run: Path
    before: str | None
    """Digest of the old run's result: of an adapter its identity; None where none is recorded."""
    now: str | None
    """Digest of the new run's."""
    steps: tuple[StepPair, ...]
    """Every step of either; empty where the old run's steps are not known."""

    @property
    def equal(self) -> bool:
        """The results are equal to the bit."""
        return self.before is not None and self.before == self.now

    @property
    def first_difference(self) -> StepPair | None:
        """The first step whose loss or samples differ."""
        return next((pair for pair in self.steps if pair.difference or not pair.same_samples), None)

    @property
    def largest(self) -> StepPair | None:
        """The step whose losses are furthest apart."""
        return max(self.steps, key=lambda pair: pair.difference, default=None)

    @override
    def __rich__(self) -> Group:
        told = [Text(line) for line in self._lines()]
        return Group(*told) if self.equal or not self.steps else Group(*told, self._table())

    def _lines(self) -> list[str]:
        if self.equal:
            return [f"the same adapter to the bit: {str(self.now)[:12]} ({self.run})"]
        before = self.before[:12] if self.before else "not recorded"
        lines = [f"not the same: {before} became {str(self.now)[:12] if self.now else 'nothing'} ({self.run})"]
        first, largest = self.first_difference, self.largest
        if not self.steps:
            lines.append("the steps of the first run are not on this machine, so losses cannot be compared")
        elif first is None or largest is None:
            lines.append(f"the losses of all {len(self.steps):,} steps are equal")
        else:
            lines.append(
                f"losses differ from step {first.step:,} on, most at step {largest.step:,}: by {largest.difference:.3g}"
            )
            if other := next((pair for pair in self.steps if not pair.same_samples), None):
                lines.append(f"other samples were learned from step {other.step:,} on")
        return lines

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for column in ("step", "loss then", "loss now", "difference"):
            table.add_column(column, justify="right")
        for pair in self._told():
            cells = ("-" if value is None else f"{value:.6f}" for value in (pair.before, pair.now))
            apart = "0" if pair.difference == 0 else f"{pair.difference:.3g}"
            table.add_row(f"{pair.step:,}", *cells, apart)
        return table

    def _told(self) -> Sequence[StepPair]:
        """A few steps at equal distances, with the first that differs, the largest difference and the last."""
        every = max(1, math.ceil(len(self.steps) / _SHOWN_STEPS))
        kept = {pair.step for pair in self.steps[::every]} | {self.steps[-1].step}
        kept |= {pair.step for pair in (self.first_difference, self.largest) if pair}
        return [pair for pair in self.steps if pair.step in kept]

    def to_plain(self) -> dict[str, Any]:
        """As plain data; infinite differences as null."""
        largest = self.largest.difference if self.largest else None
        first = self.first_difference
        return {
            "equal": self.equal,
            "adapter_then": self.before,
            "adapter_now": self.now,
            "first_step_that_differs": first.step if first else None,
            "largest_difference": largest if largest is not None and math.isfinite(largest) else None,
            "steps": [asdict(pair) for pair in self.steps],
        }


def compare(plan: Reproduction, run: Run) -> Comparison:
    """Put a run that was done again beside the first.

    Args:
        plan: what was to be done again.
        run: the new run, trained.
    """
    before: str | None = plan.adapter_sha256
    if before is None and plan.original is not None:
        before = _result(plan.original.run)
    then = effective_records(plan.original.run.steps) if plan.original else []
    return Comparison(run.path, before, _result(run), _pairs(then, effective_records(run.steps)) if then else ())


def comparison_file(run: Run) -> Path:
    """Where what came out is kept, in the folder of the new run."""
    return run.path / RECORD


def _result(run: Run) -> str | None:
    """The identity of a run's adapter, or of the model that it trained as a whole."""
    if adapter := recorded_adapter(run.adapter):
        return adapter.sha256
    files = sorted(run.adapter.glob("*.safetensors"))
    return fingerprint({file.name: sha256_file(file) for file in files}) if files else None


def _pairs(then: Sequence[StepRecord], now: Sequence[StepRecord]) -> tuple[StepPair, ...]:
    first: Mapping[int, StepRecord] = {record.step: record for record in then}
    second: Mapping[int, StepRecord] = {record.step: record for record in now}
    return tuple(_pair(step, first.get(step), second.get(step)) for step in sorted({*first, *second}))


def _pair(step: int, then: StepRecord | None, now: StepRecord | None) -> StepPair:
    same = then is not None and now is not None and then.sample_ids == now.sample_ids
    return StepPair(step, _loss(then), _loss(now), same)


def _loss(record: StepRecord | None) -> float | None:
    if record is None:
        return None
    return float.fromhex(record.loss_hex) if record.loss_hex else record.metrics.get(_LOSS)
