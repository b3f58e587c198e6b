"""Base and adapter side by side: figures, intervals and the answers behind them, kept as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from typing_extensions import override

from didact import files
from didact.display import Shown
from didact.errors import DataError, SpecError
from didact.evaluation.items import Comparison
from didact.evaluation.layout import Figure, as_markdown, as_table
from didact.evaluation.measure import TaskResult


@dataclass(frozen=True, slots=True)
class EvalReport(Shown):
    """What an evaluation found."""

    base_id: str
    """Name of the base model."""
    adapter_id: str | None
    """Name of the adapter; None when only the base was evaluated."""
    base: dict[str, float]
    """Metric -> value of the base alone."""
    adapter: dict[str, float] | None
    """Metric -> value with the adapter: the same metrics."""
    counts: dict[str, int]
    """Metric -> items behind it."""
    examples: tuple[Comparison, ...]
    """Every question with both answers."""

    def metrics(self, which: Literal["base", "adapter"]) -> dict[str, float]:
        """One side's metrics, as trackers take them.

        Raises:
            DataError: the adapter's are asked for and there is none.
        """
        values = self.base if which == "base" else self.adapter
        if values is None:
            raise DataError(f"this report is of the base {self.base_id!r} alone; it has no metrics of an adapter")
        return dict(values)

    @override
    def __rich__(self) -> Table:
        return self.table()

    def table(self) -> Table:
        """For the terminal: metric, items, base, adapter, change; 95% intervals beside accuracies."""
        return as_table(self._title, self._figures)

    def markdown(self) -> str:
        """The same table for a page or a model card, with a few answers that changed."""
        return as_markdown(self._title, self._figures, self.examples)

    @property
    def _title(self) -> str:
        return f"{self.adapter_id or 'adapter'} on {self.base_id}" if self.adapter is not None else self.base_id

    @property
    def _figures(self) -> list[Figure]:
        adapter = self.adapter or {}
        return [Figure(name, self.counts[name], value, adapter.get(name)) for name, value in self.base.items()]

    def to_json(self) -> str:
        """All fields as a JSON object; a metric that is NaN or infinite becomes null."""
        values = asdict(self)
        for side in ("base", "adapter"):
            if values[side] is not None:
                values[side] = {name: value if math.isfinite(value) else None for name, value in values[side].items()}
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "EvalReport":
        """The report written by `to_json`; null metrics become NaN.

        Raises:
            DataError: not a JSON object with exactly these fields.
        """
        try:
            values = json.loads(text)
            sides = {side: _with_nan(values[side]) for side in ("base", "adapter")}
            examples = tuple(Comparison(**example) for example in values["examples"])
            return cls(**{**values, **sides, "examples": examples})
        except (AttributeError, json.JSONDecodeError, KeyError, TypeError) as error:
            names = ", ".join(entry.name for entry in fields(cls))
            raise DataError(f"not an evaluation report ({error}); expected a JSON object with {names}") from error

    def save(self, path: Path) -> Path:
        """Write the report as JSON to `path`; returns it."""
        files.write_text(path, self.to_json())
        return path

    @classmethod
    def load(cls, path: Path) -> "EvalReport":
        """Read a report written by `save`.

        Raises:
            DataError: the file is missing or not a report.
        """
        if not path.is_file():
            raise DataError(f"{path} is missing; expected an evaluation report")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def combine(
    base_results: Sequence[TaskResult],
    adapter_results: Sequence[TaskResult] | None,
    *,
    base_id: str,
    adapter_id: str | None = None,
) -> EvalReport:
    """Put the results of the same tasks on base and adapter side by side.

    Args:
        base_results: one a task.
        adapter_results: the same tasks in the same order; None when only the base was evaluated.
        base_id: name of the base.
        adapter_id: name of the adapter.

    Raises:
        DataError: the two sides did not run the same tasks on the same questions.
        SpecError: two tasks give the same metric, so one would hide the other.
    """
    base, counts = _merged(base_results)
    examples = _compared(base_results, adapter_results)
    if adapter_results is None:
        return EvalReport(base_id, None, base, None, counts, examples)
    adapter, adapter_counts = _merged(adapter_results)
    if counts != adapter_counts:
        raise DataError(
            f"base and adapter were not measured alike: the base has {counts}, the adapter {adapter_counts} "
            "(items by metric); run the same tasks on both"
        )
    return EvalReport(base_id, adapter_id, base, adapter, counts, examples)


def _merged(results: Sequence[TaskResult]) -> tuple[dict[str, float], dict[str, int]]:
    metrics: dict[str, float] = {}
    counts: dict[str, int] = {}
    for result in results:
        twice = sorted(metrics.keys() & result.metrics.keys())
        if twice:
            raise SpecError(f"evaluation.tasks: two tasks give {twice[0]}; keep one of them")
        metrics.update(result.metrics)
        counts.update(result.counts)
    return metrics, counts


def _compared(base: Sequence[TaskResult], adapter: Sequence[TaskResult] | None) -> tuple[Comparison, ...]:
    before = [(result.task, example) for result in base for example in result.examples]
    if adapter is None:
        return tuple(
            Comparison(task, example.question, example.expected, example.answer, example.correct, None, None)
            for task, example in before
        )
    after = [(result.task, example) for result in adapter for example in result.examples]
    if [(task, example.question) for task, example in before] != [(task, example.question) for task, example in after]:
        raise DataError("base and adapter did not answer the same questions; run the same tasks on both")
    return tuple(
        Comparison(task, old.question, old.expected, old.answer, old.correct, new.answer, new.correct)
        for (task, old), (_, new) in zip(before, after, strict=True)
    )


def _with_nan(side: Mapping[str, Any] | None) -> dict[str, float] | None:
    return None if side is None else {name: math.nan if value is None else value for name, value in side.items()}
