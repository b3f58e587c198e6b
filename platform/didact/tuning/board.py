"""A search while it runs, on its driver: a live table on a terminal and in a notebook, plain lines elsewhere.

Everything is read from the journal and from the run folders, so that a continued search shows what earlier attempts
did.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact.display import Shown, alongside, in_notebook, terminal
from didact.files import follow_jsonl
from didact.pages import spent
from didact.runs import Run
from didact.spec.search.schedulers import PopulationSpec
from didact.tuning.budget import Ledger
from didact.tuning.journal import Entry
from didact.tuning.schedulers import rungs_of
from didact.tuning.search import trial_name
from didact.tuning.trial import TrialPlan

_PERIOD_SECONDS = 1.0
_MOST_ENDED = 12
"""Ended trials that the table shows, best first, below all that run."""


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One trial."""

    name: str
    status: Literal["running", "ended", "failed"]
    step: int
    """Newest optimizer step."""
    rung: int
    """Rungs that it has passed or was stopped at."""
    metric: float | None
    """The first goal at its newest measurement."""


@dataclass(frozen=True, slots=True)
class BoardFacts(Shown):
    """A search at one moment."""

    name: str
    metric: str
    mode: Literal["min", "max"]
    num_steps: int
    """Of a trial that is not stopped."""
    rungs: tuple[int, ...]
    """Steps, or tokens, at which trials that lag are stopped."""
    rows: tuple[BoardRow, ...]
    total: int
    """Trials of the whole search; with a budget, as planned."""
    share: float | None = None
    """Part of the budget that is spent; None without one."""
    seconds_left: float | None = None
    """Until all trials have ended; None while nothing tells."""
    ending: str | None = None
    """Why no other trial is begun before there are all of them."""
    confirms: bool = False
    """Whether the best are run again with fresh seeds once all trials have ended."""

    @property
    def best(self) -> BoardRow | None:
        """The best of the trials that have measured the metric and have not failed."""
        sign = 1 if self.mode == "min" else -1
        known = [row for row in self.rows if row.status != "failed" and _is_number(row.metric)]
        return min(known, key=lambda row: sign * (row.metric or 0.0), default=None)

    @property
    def line(self) -> str:
        """All of it in one line."""
        counts = {status: sum(row.status == status for row in self.rows) for status in ("ended", "running", "failed")}
        parts = [f"{counts['ended']} of {self.total} trials"]
        parts += [f"{counts[status]} {status}" for status in ("running", "failed") if counts[status]]
        if self.best is not None:
            parts.append(f"best {self.best.name} {self.metric} {self.best.metric:.4g}")
        if self.share is not None:
            parts.append(f"{self.share:.0%} of the budget")
        if self.seconds_left:
            then = " until the best are run again with fresh seeds" if self.confirms else " left"
            parts.append(f"about {spent(self.seconds_left)}{then}")
        if self.ending is not None:
            parts.append(f"ended since {self.ending}")
        return ", ".join(parts)

    @override
    def __rich__(self) -> Group:
        sign = 1 if self.mode == "min" else -1
        running = [row for row in self.rows if row.status == "running"]
        ended = [row for row in self.rows if row.status != "running"]
        ended.sort(key=lambda row: (row.status == "failed", sign * _or_infinite(row.metric, sign)))
        table = Table(title=f"sweep {self.name}")
        for heading in ("trial", "status"):
            table.add_column(heading)
        for heading in ("step", *(["rung"] if self.rungs else []), self.metric):
            table.add_column(heading, justify="right")
        for row in (*running, *ended[:_MOST_ENDED]):
            rung = [f"{row.rung}/{len(self.rungs)}"] if self.rungs else []
            shown = f"{row.metric:.4g}" if row.metric is not None else ""
            is_best = self.best is not None and row.name == self.best.name
            table.add_row(
                row.name, row.status, f"{row.step}/{self.num_steps}", *rung, shown, style="bold" if is_best else None
            )
        more = [Text(f"and {len(ended) - _MOST_ENDED} more")] if len(ended) > _MOST_ENDED else []
        return Group(table, *more, Text(self.line))


class Watcher:
    """Reads what is new in the journal and in the run folders at each look."""

    def __init__(
        self,
        plan: TrialPlan,
        total: int,
        num_steps: int,
        ledger: Ledger | None = None,
        num_tokens: float | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            plan: of the sweep.
            total: trials of the search.
            num_steps: of a trial that is not stopped.
            ledger: of a budget.
            num_tokens: of a trial that is not stopped.
        """
        self._num_tokens = num_tokens
        self.plan, self.num_steps, self.ledger, self.total = plan, num_steps, ledger, total
        self._expected = ledger.plan.trials if ledger else total
        self._seen: dict[str, _Seen] = {}
        self._begun = time.monotonic()
        self._steps_before: int | None = None

    def look(self) -> BoardFacts:
        """The search now."""
        plan, objective = self.plan, self.plan.search.objective
        entries = plan.journal.entries()
        rungs = rungs_of(plan.search.sweep.scheduler, self.longest)
        rows = tuple(self._row(entry, rungs) for entry in entries)
        steps = sum(row.step for row in rows)
        if self._steps_before is None:
            self._steps_before = steps
        closed = plan.journal.closed()
        return BoardFacts(
            plan.search.sweep.name,
            objective.name,
            objective.goals[0].mode,
            self.num_steps,
            rungs,
            rows,
            max(len(rows), self._expected) if closed is None else closed[0],
            self._share(),
            self._left(rows, steps - self._steps_before, time.monotonic() - self._begun),
            closed[1] if closed else None,
            bool(plan.search.sweep.confirm),
        )

    @property
    def longest(self) -> float:
        """Of a trial that is not stopped, in the unit of the scheduler's time; 0 where its tokens are not known."""
        scheduler = self.plan.search.sweep.scheduler
        in_tokens = scheduler is not None and scheduler.unit == "tokens"
        return (self._num_tokens or 0.0) if in_tokens else self.num_steps

    def _row(self, entry: Entry, rungs: tuple[int, ...]) -> BoardRow:
        name = trial_name(self.plan.search.sweep, entry.trial_id)
        seen = self._seen.setdefault(entry.trial_id, _Seen())
        seen.read(Run(self.plan.trials_dir / name), self.plan.search.objective.value)
        status: Literal["running", "ended", "failed"] = (
            "failed" if entry.error else "ended" if entry.ended else "running"
        )
        scheduler = self.plan.search.sweep.scheduler
        time = seen.tokens_at if scheduler is not None and scheduler.unit == "tokens" else seen.measured_at
        return BoardRow(name, status, seen.step, sum(time >= rung for rung in rungs), seen.metric)

    def _share(self) -> float | None:
        if self.ledger is None:
            return None
        plan = self.ledger.plan
        if plan.prices.unit == "tokens":
            return sum(sum(each.tokens.values()) for each in self._seen.values()) / plan.amount
        return self.ledger.elapsed() / plan.amount

    def _left(self, rows: tuple[BoardRow, ...], done: int, seconds: float) -> float | None:
        """By the steps that this attempt did; trials to come are as long as those that have ended were in the mean."""
        if self.ledger is not None and self.ledger.plan.prices.unit == "seconds":
            return max(0.0, self.ledger.plan.amount - self.ledger.plan.confirm_cost - self.ledger.elapsed())
        ended = [row.step for row in rows if row.status == "ended"]
        if done <= 0:
            return None
        population = isinstance(self.plan.search.sweep.scheduler, PopulationSpec)  # its copies run to the end
        each = sum(ended) / len(ended) if ended and not population else float(self.num_steps)
        to_come = max(0, self._expected - len(rows)) * each
        to_come += sum(max(0.0, each - row.step) for row in rows if row.status == "running")
        return to_come * seconds / done


class _Seen:
    """What was read of one run so far."""

    def __init__(self) -> None:
        self.offset, self.step, self.measured_at = 0, 0, 0
        self.metric: float | None = None
        self.tokens: dict[int, float] = {}
        """By step, so that steps done again count once."""

    @property
    def tokens_at(self) -> float:
        """Tokens up to the newest measurement."""
        return sum(tokens for step, tokens in self.tokens.items() if step <= self.measured_at)

    def read(self, run: Run, value: Callable[[dict[str, Any]], float | None]) -> None:
        if not run.steps.is_file():
            return
        records, self.offset = follow_jsonl(run.steps, self.offset)
        for record in records:
            self.step, metrics = int(record["step"]), record["metrics"]
            if "train/tokens" in metrics:
                self.tokens[self.step] = float(metrics["train/tokens"])
            if (found := value(metrics)) is not None:
                self.metric, self.measured_at = found, self.step


@contextlib.contextmanager
def show_board(watcher: Watcher) -> Iterator[None]:
    """Look again and again until the block ends, and show what is seen."""
    with alongside(partial(_follow, watcher), "board"):
        yield


def _follow(watcher: Watcher, stop: threading.Event) -> None:
    with _shown() as show:
        done = False
        while not done:
            done = stop.wait(_PERIOD_SECONDS)  # once more after the end
            show(watcher.look())


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[BoardFacts], object]]:
    console = terminal(stderr=True)
    if in_notebook():
        from IPython.display import display

        handle = display(Text("no trial has begun yet"), display_id=True)
        yield lambda facts: handle.update(facts)
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=2) as live:
            yield lambda facts: live.update(facts)
    else:
        yield PlainLines(lambda line: console.print(line, highlight=False, soft_wrap=True))


class PlainLines:
    """A line each time that a trial has ended or failed, or that another one is the best."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._told: tuple[int, str | None] = (0, None)

    def __call__(self, facts: BoardFacts) -> None:
        """Take a look at the search."""
        over = sum(row.status != "running" for row in facts.rows)
        now = (over, facts.best.name if facts.best else None)
        if now != self._told:
            self._told = now
            self._write(f"{facts.name}: {facts.line}")


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _or_infinite(value: float | None, sign: int) -> float:
    return value if value is not None and math.isfinite(value) else sign * math.inf
