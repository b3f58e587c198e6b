"""Show a run's progress on the driver by following its step records: a bar on a terminal, a bar in a notebook, plain
lines elsewhere."""

import contextlib
import html
import threading
import time
from collections.abc import Callable, Iterator
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
