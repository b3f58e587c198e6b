"""An evaluation while it runs: how many questions are scored, and the figure so far with its interval.

Watch(task, model, scored) ... -> a table that lives on a terminal, a line now and then elsewhere
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from didact.display import terminal
from didact.evaluation import Model, Scored, Task, Watch
from didact.evaluation.statistics import is_share, least_possible, mean_interval

_LINES = 10
"""Plain lines for a task and a model, where no terminal shows the table."""
_BAR = 20
_REFRESHES = 4
"""A second."""


@dataclass
class SoFar:
    """One task on one model."""

    task: str
    model: str
    metric: str
    total: int
    """Questions of the task."""
    values: list[float] = field(default_factory=list)
    """Of the questions that are scored."""
    passages: list[str] = field(default_factory=list)
    problems: int = 0
    done: int = 0
    """Questions that are over, with a score or without one."""

    def add(self, scored: Scored) -> None:
        """Take up a question; it may have another metric, where a task is made of several."""
        self.done += 1
        self.problems += scored.score.problem is not None
        value = scored.score.values.get(self.metric)
        if value is None or not math.isfinite(value):
            return
        self.values.append(value)
        self.passages.append(scored.question.passage or f"question {scored.question.id}")

    @property
    def figure(self) -> str:
        """The mean with its 95% interval where chance can be told; empty before the first score."""
        if not self.values:
            return ""
        of = mean_interval(self.values, self.passages, share=is_share(self.metric, self.values))
        low = max(of.low, least_possible(self.metric))
        return f"{of.value:.3f} [{low:.3f}, {of.high:.3f}]" if math.isfinite(of.high) else f"{of.value:.3f}"

    @property
    def without_score(self) -> str:
        """How many got none; empty where all did."""
        return f"{self.problems} without a score" if self.problems else ""


class Following:
    """All tasks on all models, in the order in which they began."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], SoFar] = {}
        self._lock = threading.Lock()

    def add(self, task: Task, model: Model, scored: Scored) -> SoFar:
        """Take up a question; gives its row."""
        with self._lock:
            name = model.identity.name
            row = self.rows.setdefault(
                (task.name, name), SoFar(task.name, name, task.metric, max(1, len(task.questions)))
            )
            row.add(scored)
            return row

    def table(self) -> Table:
        """All rows as they stand now."""
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("task", "model", "", "questions", "so far (95% interval)", ""):
            table.add_column(name, justify="right" if name == "questions" else "left", no_wrap=True)
        with self._lock:
            for row in self.rows.values():
                full = round(_BAR * row.done / row.total)
                bar = f"[blue]{'━' * full}[/blue][dim]{'━' * (_BAR - full)}[/dim]"
                cells = (f"{row.done}/{row.total}", f"{row.metric} {row.figure}" if row.figure else "")
                table.add_row(escape(row.task), escape(row.model), bar, *map(escape, cells), row.without_score)
        return table


@contextlib.contextmanager
def watched(console: Console | None = None) -> Iterator[Watch]:
    """Show an evaluation until the block ends; gives what `evaluate_on_ray` takes as `watch`.

    Args:
        console: where; left out, stderr.
    """
    console = console or terminal(stderr=True)
    following = Following()

    def taken(task: Task, model: Model, scored: Scored) -> None:
        following.add(task, model, scored)  # the table is drawn by the clock

    def line(task: Task, model: Model, scored: Scored) -> None:
        row = following.add(task, model, scored)
        if row.done in (1, row.total) or row.done % max(1, row.total // _LINES) == 0:
            parts = (row.task, row.model, f"{row.done}/{row.total}", f"{row.metric} {row.figure}", row.without_score)
            console.print("  ".join(part for part in parts if part), highlight=False, markup=False, soft_wrap=True)

    if not console.is_terminal:
        yield line
        return
    live = Live(get_renderable=following.table, console=console, refresh_per_second=_REFRESHES, redirect_stdout=False)
    with live:
        yield taken
