"""What a sweep found, as data, as a table on the terminal and as Markdown."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact.cluster import FinetuneResult
from didact.display import Shown
from didact.errors import RunError
from didact.files import write_json, write_text
from didact.tuning.confirming import Confirmation, confirmation_from
from didact.tuning.objective import Objective
from didact.tuning.records import TrialResult
from didact.tuning.searchers import Response
from didact.tuning.spaces import weighed_source

COPY = "copy of "
"""How the origin of a trial begins that goes on from another one."""


@dataclass(frozen=True, slots=True)
class SweepResult(Shown):
    """All trials of a sweep, best first."""

    name: str
    metric: str
    """Name of the first goal."""
    mode: Literal["min", "max"]
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    """The winner of the runs with fresh seeds, where there are any; else the best finished trial, one stopped early
    only when none finished; None when all failed."""
    outcome: FinetuneResult | None = None
    """Report and registered version of the best trial, when the sweep registers it."""
    front: tuple[str, ...] = ()
    """Of several goals: names of the trials that no other one beats in all of them."""
    goals: tuple[str, ...] = ()
    """Names of several goals."""
    findings: str | None = None
    """What the searcher's model says of the search, in words."""
    confirmation: Confirmation | None = None
    """The best trials run again with fresh seeds, when the sweep asks for it."""
    spending: str | None = None
    """What was spent of a budget, in words."""
    ending: str | None = None
    """Why the search ended before it had all its trials."""
    responses: Mapping[str, Response] = field(default_factory=dict)
    """Dotted path -> what the searcher's model expects along it, the others as in its best draw."""

    @override
    def __rich__(self) -> Group:
        shown: list[Table | Text] = [self.table()]
        if self.confirmation:
            shown += [self.confirmation.__rich__(), Text(self.confirmation.words)]
        shown += [Text(f"ended since {self.ending}")] if self.ending else []
        return Group(*shown, *([Text(self.spending)] if self.spending else []))

    def with_confirmation(self, found: Confirmation) -> "SweepResult":
        """The same, with the winner of the runs with fresh seeds as the best trial where there is one."""
        winner = next((trial for trial in self.trials if trial.name == found.winner), self.best)
        return replace(self, confirmation=found, best=winner)

    def table(self) -> Table:
        """For a rich console."""
        table = Table(title=f"sweep {self.name}, {self.metric} ({self.mode})")
        for heading, cells in self.columns():
            figures = all(_is_number(cell) for cell in cells)
            table.add_column(heading, justify="right" if figures else "left", overflow="fold")
        for row in zip(*(cells for _, cells in self.columns()), strict=True):
            table.add_row(*row, style="bold" if self.best and row[0] == self.best.name else None)
        return table

    def markdown(self) -> str:
        """A Markdown table with the best trial named below it, and why trials failed."""
        columns = self.columns()
        lines = [f"# Sweep {self.name}", "", _row([heading for heading, _ in columns]), _row(["---"] * len(columns))]
        lines += [_row(row) for row in zip(*(cells for _, cells in columns), strict=True)]
        lines += ["", f"Best {self.metric} ({self.mode}): {self.best.name if self.best else 'none'}."]
        lines += ["", f"Beaten by none in all goals: {', '.join(self.front)}."] if self.front else []
        lines += ["", f"The searcher's model: {self.findings}."] if self.findings else []
        lines += ["", f"The search ended since {self.ending}."] if self.ending else []
        if self.confirmation:
            again = self.confirmation.columns()
            lines += ["", "## Run again with fresh seeds", "", _row([heading for heading, _ in again])]
            lines += [_row(["---"] * len(again)), *map(_row, zip(*(cells for _, cells in again), strict=True))]
            lines += ["", f"{self.confirmation.words}."]
        lines += ["", f"Of its {self.spending}."] if self.spending else []
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
                "goals": self.goals,
                "front": self.front,
                "findings": self.findings,
                "responses": self.responses,
                "spending": self.spending,
                "ending": self.ending,
                "confirmation": self.confirmation and _as_json(self.confirmation),
                "trials": [{**asdict(trial), "run": str(trial.run)} for trial in self.trials],
            },
        )
        write_text(folder / "results.md", self.markdown())

    def columns(self) -> list[tuple[str, list[str]]]:
        """Headings with their cells, a cell a trial."""
        paths = list(dict.fromkeys(path for trial in self.trials for path in trial.values))
        return [
            ("trial", [trial.name for trial in self.trials]),
            *((heading_of(path), [_cell(trial.values.get(path)) for trial in self.trials]) for path in paths),
            (self.metric, [_cell(trial.metric) for trial in self.trials]),
            *self._confirmed_column(),
            *self._copies_column(),
            *((name, [_cell(trial.metrics.get(name)) for trial in self.trials]) for name in self.goals[1:]),
            ("steps", [str(trial.steps) for trial in self.trials]),
            ("status", [trial.status for trial in self.trials]),
        ]

    def _copies_column(self) -> list[tuple[str, list[str]]]:
        """Of a population: which trial a copy was taken of, and when."""
        told = [trial.origin.removeprefix(COPY) if trial.origin.startswith(COPY) else "" for trial in self.trials]
        return [("copy of", told)] if any(told) else []

    def _confirmed_column(self) -> list[tuple[str, list[str]]]:
        if self.confirmation is None:
            return []
        arms = [self.confirmation.arm(trial.name) for trial in self.trials]
        return [("confirmed", [_cell(arm.mean) if arm else "" for arm in arms])]


def read_results(folder: Path) -> SweepResult:
    """What a sweep found, from its folder.

    Raises:
        RunError: its trials have not ended, or the folder holds no sweep.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise RunError(f"{folder} holds no results of a sweep; `didact tune` writes them when its trials have ended")
    kept = json.loads(file.read_text(encoding="utf-8"))
    known = {each.name for each in fields(TrialResult)}
    trials = tuple(
        TrialResult(**{name: _stored(name, value) for name, value in each.items() if name in known})
        for each in kept["trials"]
    )
    best = next((trial for trial in trials if trial.name == kept["best"]), None)
    return SweepResult(
        kept["name"],
        kept["metric"],
        kept["mode"],
        trials,
        best,
        front=tuple(kept.get("front", ())),
        goals=tuple(kept.get("goals", ())),
        findings=kept.get("findings"),
        responses={
            path: tuple((float(x), float(mean), float(sd)) for x, mean, sd in line)
            for path, line in kept.get("responses", {}).items()
        },
        spending=kept.get("spending"),
        ending=kept.get("ending"),
        confirmation=confirmation_from(kept["confirmation"]) if kept.get("confirmation") else None,
    )


def _as_json(found: Confirmation) -> dict[str, Any]:
    kept = asdict(found)
    return {**kept, "arms": [{**arm, "runs": [str(run) for run in arm["runs"]]} for arm in kept["arms"]]}


def _stored(name: str, value: Any) -> Any:
    if name == "run":
        return Path(value)
    if name == "rungs":
        return tuple((int(step), float(metric)) for step, metric in value)
    return tuple(value) if name == "violations" else value


def rank(trials: list[TrialResult], mode: Literal["min", "max"]) -> tuple[TrialResult, ...]:
    """Finished trials before stopped ones before failed ones; in each group those that keep the constraints first.

    Then by the first goal. The first one is the best.
    """
    order = ("finished", "stopped early", "failed")
    sign = 1 if mode == "min" else -1

    def key(trial: TrialResult) -> tuple[int, bool, float, str]:
        known = math.inf if trial.metric is None or not math.isfinite(trial.metric) else sign * trial.metric
        return order.index(trial.status), not trial.allowed, known, trial.name

    return tuple(sorted(trials, key=key))


def result_of(
    name: str,
    objective: Objective,
    trials: list[TrialResult],
    findings: str | None = None,
    ending: str | None = None,
) -> SweepResult:
    """All trials, ranked; the best one is the first that keeps the constraints."""
    mode = objective.goals[0].mode
    ranked = rank(trials, mode)
    good = [trial for trial in ranked if trial.status != "failed" and trial.allowed]
    several = len(objective.goals) > 1
    finished = [trial for trial in good if trial.status == "finished"]
    front = objective.front([objective.losses(trial.metrics) for trial in finished]) if several else ()
    return SweepResult(
        name,
        objective.name,
        mode,
        ranked,
        good[0] if good else None,
        front=tuple(finished[index].name for index in front),
        goals=tuple(goal.name for goal in objective.goals) if several else (),
        findings=findings,
        ending=ending,
    )


def heading_of(path: str) -> str:
    """`data.sources.NAME.weight` as `NAME weight`; other paths without their room."""
    if (source := weighed_source(path)) is not None:
        return f"{source} weight"
    return path.partition(".")[2] or path


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple) and value and all(isinstance(each, dict) for each in value):
        return "; ".join(_told(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _told(stage: dict[str, Any]) -> str:
    """A change, or a stage of a curriculum."""
    parts = {**stage, **stage.get("weights", {})}
    return ", ".join(f"{name} {_cell(value)}" for name, value in parts.items() if name != "weights")


def _is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
