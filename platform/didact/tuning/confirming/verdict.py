"""Which trial won with seeds that the search has not seen, by how much, and whether that is more than chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from typing_extensions import override

from didact.display import Shown
from didact.evaluation.statistics import blocked_noise


@dataclass(frozen=True, slots=True)
class ArmResult:
    """A draw with what its runs measured."""

    name: str
    """The trial's, or `uniform`, `proportional`, `recipe`."""
    draw: dict[str, Any]
    """Dotted path -> value."""
    values: tuple[float | None, ...]
    """The first goal, one a seed; None where a run failed."""
    trial: str | None = None
    """None for what trials are compared with."""
    runs: tuple[Path, ...] = ()
    """One a seed."""
    errors: tuple[str, ...] = ()
    """Why runs failed."""
    violations: tuple[float, ...] = ()
    """By how much constraints are broken in the mean over seeds; at most 0 where they are kept."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Means over seeds."""

    @property
    def measured(self) -> tuple[float, ...] | None:
        """The goal with every seed; None where a run failed or came to no number."""
        found = tuple(value for value in self.values if value is not None and math.isfinite(value))
        return found if found and len(found) == len(self.values) else None

    @property
    def mean(self) -> float | None:
        """Over seeds; None as `measured`."""
        found = self.measured
        return None if found is None else sum(found) / len(found)


@dataclass(frozen=True, slots=True)
class Against:
    """The winner beside what it is compared with."""

    name: str
    gain: float
    """Mean over seeds of the paired differences, positive where the winner is better."""
    low: float
    """Lower end of the interval; minus infinity where one seed says nothing of chance."""
    high: float

    @property
    def beaten(self) -> bool:
        """Whether the winner is better by more than chance explains."""
        return self.low > 0

    def __str__(self) -> str:
        if not math.isfinite(self.low):
            return f"{self.gain:+.4g} against {self.name} with a single seed, which says nothing of chance"
        return f"{_interval(self)} against {self.name}"


@dataclass(frozen=True, slots=True)
class Confirmation(Shown):
    """The best trials and what they are compared with, run with the same fresh seeds."""

    metric: str
    mode: Literal["min", "max"]
    seeds: tuple[int, ...]
    arms: tuple[ArmResult, ...]
    winner: str | None
    """Name of the trial that is best in the mean and keeps the constraints; None where none came to a result."""
    against: tuple[Against, ...] = ()

    @property
    def beats_all(self) -> bool:
        """Whether the winner is better than everything it is compared with, each by more than chance explains."""
        compared = [arm for arm in self.arms if arm.trial is None]
        return len(self.against) == len(compared) and all(each.beaten for each in self.against)

    def arm(self, name: str) -> ArmResult | None:
        """By name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def words(self) -> str:
        """For people."""
        arm = self.arm(self.winner) if self.winner else None
        if arm is None or arm.mean is None:
            errors = [error for each in self.arms for error in each.errors]
            why = f", the first with: {errors[0]}" if errors else ""
            return f"not confirmed: no trial came to a result with every fresh seed{why}"
        seeds = "1 fresh seed" if len(self.seeds) == 1 else f"{len(self.seeds)} fresh seeds"
        missing = [each.name for each in self.arms if each.trial is None and each.measured is None]
        if self.beats_all:
            verdict = f"better than {_listed([each.name for each in self.against])} by more than chance explains"
        else:
            open_ = [each.name for each in self.against if not each.beaten] + missing
            verdict = f"not shown to be better than {_listed(open_)}"
        gains = "; ".join(str(each) for each in self.against)
        return f"{arm.name} has {self.metric} {arm.mean:.4g} over {seeds} ({gains}): {verdict}"

    @override
    def __rich__(self) -> Table:
        table = Table(title=f"confirmed with fresh seeds, {self.metric} ({self.mode})")
        for heading, _ in self.columns():
            is_text = heading in ("run again", "the winner's gain")
            table.add_column(heading, justify="left" if is_text else "right", overflow="fold")
        for row in zip(*(cells for _, cells in self.columns()), strict=True):
            table.add_row(*row, style="bold" if row[0] == self.winner else None)
        return table

    def columns(self) -> list[tuple[str, list[str]]]:
        """Headings with their cells, a cell an arm."""
        gains = {each.name: each for each in self.against}
        by_seed = [
            (f"seed {seed}", [_number(arm.values[place] if place < len(arm.values) else None) for arm in self.arms])
            for place, seed in enumerate(self.seeds)
        ]
        told = [_interval(gains[arm.name]) if arm.name in gains else "" for arm in self.arms]
        return [
            ("run again", [arm.name for arm in self.arms]),
            *by_seed,
            ("mean", [_number(arm.mean) for arm in self.arms]),
            ("the winner's gain", told),
        ]


def confirmation_from(kept: dict[str, Any]) -> Confirmation:
    """What `dataclasses.asdict` made of one, after a way through JSON."""
    arms = tuple(
        ArmResult(
            each["name"],
            each["draw"],
            tuple(each["values"]),
            each["trial"],
            tuple(Path(run) for run in each["runs"]),
            tuple(each["errors"]),
            tuple(each["violations"]),
            each["metrics"],
        )
        for each in kept["arms"]
    )
    against = tuple(Against(**each) for each in kept["against"])
    return Confirmation(kept["metric"], kept["mode"], tuple(kept["seeds"]), arms, kept["winner"], against)


def judge(
    arms: Sequence[ArmResult], metric: str, mode: Literal["min", "max"], seeds: Sequence[int] = ()
) -> Confirmation:
    """Choose the winner and hold it against what it is compared with, seed by seed.

    The noise is that of a randomized block design over all arms that every seed has measured. Intervals hold 95% for
    all trials that were run again together, since the winner is chosen among them by the same runs (Bonferroni). To
    be better than everything it must be better than each, which needs no further correction (Berger, 1982).

    Args:
        arms: trials and what they are compared with, each with the same seeds in the same order.
        metric: the first goal.
        mode: whether less or more of it is better.
        seeds: in the order of the arms' values; left out: 0, 1, ...
    """
    sign = -1.0 if mode == "min" else 1.0
    told = tuple(seeds) or tuple(range(max((len(arm.values) for arm in arms), default=0)))
    known = [(arm, arm.measured) for arm in arms]
    whole = [(arm, values) for arm, values in known if values is not None and len(values) == len(told)]
    means = {arm.name: sign * sum(values) / len(values) for arm, values in whole}
    trials = [arm for arm, _ in whole if arm.trial is not None and all(each <= 0 for each in arm.violations)]
    if not trials:
        return Confirmation(metric, mode, told, tuple(arms), None)
    winner = max(trials, key=lambda arm: means[arm.name])
    again = sum(1 for arm, _ in whole if arm.trial is not None)
    half = blocked_noise([values for _, values in whole]).half_width(again)
    against = tuple(
        Against(arm.name, gain := means[winner.name] - means[arm.name], gain - half, gain + half)
        for arm, _ in whole
        if arm.trial is None
    )
    return Confirmation(metric, mode, told, tuple(arms), winner.name, against)


def _interval(found: Against) -> str:
    if not math.isfinite(found.low):
        return f"{found.gain:+.4g}"
    half = (found.high - found.low) / 2
    places = min(max(1 - math.floor(math.log10(half)), 0), 9) if half > 0 else 4  # two digits of its half width
    return f"{found.gain:+.{places}f} [{found.low:+.{places}f} to {found.high:+.{places}f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
