"""What a sweep found, as data, as a table on the terminal and as Markdown."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from typing_extensions import override

from didact.cluster import FinetuneResult
from didact.display import Shown
from didact.files import write_json, write_text

Status = Literal["finished", "stopped early", "failed"]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial."""

    name: str
    values: dict[str, Any]
    """What was sampled: dotted path -> value."""
    metric: float | None
    """The sweep's metric at its newest measurement; None when there was none."""
    steps: int
    """Optimizer steps done."""
    status: Status
    run: Path
    """The trial's run folder."""
    error: str | None = None
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class SweepResult(Shown):
    """All trials of a sweep, best first."""

    name: str
    metric: str
    mode: Literal["min", "max"]
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    """The best finished trial; one stopped early only when none finished; None when all failed."""
    outcome: FinetuneResult | None = None
    """Report and registered version of the best trial, when the sweep registers it."""

    @override
    def __rich__(self) -> Table:
        return self.table()

    def table(self) -> Table:
        """For a rich console."""
        table = Table(title=f"sweep {self.name}, {self.metric} ({self.mode})")
        for heading, cells in self._columns():
            figures = all(_is_number(cell) for cell in cells)
            table.add_column(heading, justify="right" if figures else "left", overflow="fold")
        for row in zip(*(cells for _, cells in self._columns()), strict=True):
            table.add_row(*row, style="bold" if self.best and row[0] == self.best.name else None)
        return table

    def markdown(self) -> str:
        """A Markdown table with the best trial named below it, and why trials failed."""
        columns = self._columns()
        lines = [f"# Sweep {self.name}", "", _row([heading for heading, _ in columns]), _row(["---"] * len(columns))]
        lines += [_row(row) for row in zip(*(cells for _, cells in columns), strict=True)]
        lines += ["", f"Best {self.metric} ({self.mode}): {self.best.name if self.best else 'none'}."]
        if self.outcome and self.outcome.version:
            lines += ["", f"Registered as {self.outcome.version.name} version {self.outcome.version.version}."]
        lines += [f"\n{trial.name} failed: {trial.error}" for trial in self.trials if trial.error]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> None:
        """Write `results.json` and `results.md`."""
        write_json(
            folder / "results.json",
            {
                "name": self.name,
                "metric": self.metric,
                "mode": self.mode,
                "best": self.best.name if self.best else None,
                "trials": [
                    {
                        "name": trial.name,
                        "values": trial.values,
                        "metric": trial.metric,
                        "steps": trial.steps,
                        "status": trial.status,
                        "run": str(trial.run),
                        "error": trial.error,
                    }
                    for trial in self.trials
                ],
            },
        )
        write_text(folder / "results.md", self.markdown())

    def _columns(self) -> list[tuple[str, list[str]]]:
        paths = list(dict.fromkeys(path for trial in self.trials for path in trial.values))
        return [
            ("trial", [trial.name for trial in self.trials]),
            *((_heading(path), [_cell(trial.values.get(path)) for trial in self.trials]) for path in paths),
            (self.metric, [_cell(trial.metric) for trial in self.trials]),
            ("steps", [str(trial.steps) for trial in self.trials]),
            ("status", [trial.status for trial in self.trials]),
        ]


def rank(trials: list[TrialResult], mode: Literal["min", "max"]) -> tuple[TrialResult, ...]:
    """Finished trials before stopped ones before failed ones, each group by metric. The first is the best."""
    order = ("finished", "stopped early", "failed")
    sign = 1 if mode == "min" else -1

    def key(trial: TrialResult) -> tuple[int, float, str]:
        known = math.inf if trial.metric is None or not math.isfinite(trial.metric) else sign * trial.metric
        return order.index(trial.status), known, trial.name

    return tuple(sorted(trials, key=key))


def _heading(path: str) -> str:
    """`data.sources.NAME.weight` as `NAME weight`; other paths without their room."""
    if path.startswith("data.sources.") and path.endswith(".weight"):
        return path.removeprefix("data.sources.").removesuffix(".weight") + " weight"
    return path.partition(".")[2] or path


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
