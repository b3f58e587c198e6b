"""Show progress on the driver by following step records: of one run a bar on a terminal, a bar in a notebook, plain
lines elsewhere; of runs beside each other one line in words."""

import contextlib
import html
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from typing_extensions import override

from didact.display import Shown, alongside, in_notebook, in_words, terminal
from didact.files import follow_jsonl
from didact.runs import Run

_PERIOD_SECONDS = 0.5
_Show = Callable[[int, str, bool], None]


@dataclass(frozen=True, slots=True)
class NotebookBar(Shown):
    """How far a run is, as a notebook shows it."""

    name: str
    step: int
    num_steps: int
    figures: str

    @override
    def __rich__(self) -> Text:
        return Text(f"{self.name} step {self.step}/{self.num_steps}  {self.figures}")

    @override
    def _repr_html_(self) -> str:
        return (
            f'<b>{html.escape(self.name)}</b> <progress value="{self.step}" max="{self.num_steps}"></progress> '
            f"{self.step}/{self.num_steps}&ensp;{html.escape(self.figures)}"
        )


@contextlib.contextmanager
def show_progress(run: Run, num_steps: int) -> Iterator[None]:
    """Follow `steps.jsonl` until the block ends."""
    _, offset = follow_jsonl(run.steps, 0)  # pass over earlier attempts
    with alongside(partial(_follow, run, num_steps, offset), "progress"):
        yield


def _follow(run: Run, num_steps: int, offset: int, stop: threading.Event) -> None:
    with _shown(run.name, num_steps) as show:
        done = False
        while not done:
            done = stop.wait(_PERIOD_SECONDS)  # once more after the end, for the last lines
            records, offset = follow_jsonl(run.steps, offset)
            for record in records:
                show(record["step"], _figures(record["metrics"]), _is_milestone(record, num_steps))


@contextlib.contextmanager
def _shown(name: str, num_steps: int) -> Iterator[_Show]:
    console = terminal(stderr=True)
    if in_notebook():
        from IPython.display import display

        handle = display(NotebookBar(name, 0, num_steps, "starting workers"), display_id=True)
        yield lambda step, figures, _: handle.update(NotebookBar(name, step, num_steps, figures))
    elif console.is_terminal:
        columns = (
            TextColumn("[bold]{task.fields[name]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("training", total=num_steps, name=name, figures="starting workers")
            yield lambda step, figures, _: progress.update(task, completed=step, figures=figures)
    else:
        left = _TimeLeft(num_steps)

        def write(step: int, figures: str, milestone: bool) -> None:
            time_left = left.at(step)
            if milestone:
                words = f"  about {time_left} left" if time_left else ""
                console.print(f"{name} step {step}/{num_steps}  {figures}{words}", highlight=False, soft_wrap=True)

        yield write


class StepsOfRuns:
    """How far runs that train beside each other are, in words.

    Example:
        >>> steps = StepsOfRuns([], None)
        >>> str(steps)
        'no step yet'
    """

    def __init__(self, runs: Sequence[Run], until: int | None) -> None:
        self._runs, self._until = runs, until
        self._offsets, self._steps, self._began = [0] * len(runs), [0] * len(runs), time.monotonic()
        self._before = self._done()

    def __str__(self) -> str:
        done, totals = self._done(), [total for run in self._runs if (total := self._total(run)) is not None]
        if not totals or done == self._before:
            return "no step yet"
        steps = sum(totals) / len(totals) * len(self._runs)  # those that have not begun are taken for like the others
        left = (time.monotonic() - self._began) / (done - self._before) * (steps - done)
        return f"step {done} of {steps:.0f} in all" + (f", about {in_words(left)} left" if left > 0 else "")

    def _done(self) -> int:
        for place, run in enumerate(self._runs):
            records, self._offsets[place] = follow_jsonl(run.steps, self._offsets[place])
            if records:
                self._steps[place] = records[-1]["step"]
        return sum(self._steps)

    def _total(self, run: Run) -> int | None:
        total: int | None = json.loads(run.data.read_text()).get("num_steps") if run.data.is_file() else None
        return total if total is None or self._until is None else min(total, self._until)


class _TimeLeft:
    """How long training still takes, by the pace since the first step that was seen, which may be a resumed run's."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps, self._began = num_steps, (0, 0.0)

    def at(self, step: int) -> str | None:
        """After a step; None where nothing tells it, and at the end."""
        now = time.monotonic()
        if not self._began[0]:
            self._began = step, now
        first, began = self._began
        if not first < step < self._num_steps:
            return None
        return in_words((now - began) / (step - first) * (self._num_steps - step))


def _is_milestone(record: dict[str, object], num_steps: int) -> bool:
    """About ten plain lines a run, and every evaluation."""
    step = int(str(record["step"]))
    return step in (1, num_steps) or step % max(1, num_steps // 10) == 0 or "eval/loss" in str(record["metrics"])


def _figures(metrics: dict[str, float]) -> str:
    parts = [f"loss {float(metrics['train/loss']):.4f}", f"{float(metrics['train/tokens_per_second']):.0f} tokens/s"]
    if "eval/loss" in metrics:
        parts.append(f"held-out {float(metrics['eval/loss']):.4f}")
    return "  ".join(parts)
