"""Show a run's progress on the driver by following its step records: a bar on a terminal, plain lines elsewhere."""

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from didact.files import follow_jsonl
from didact.runs import Run

_PERIOD_SECONDS = 0.5


@contextlib.contextmanager
def show_progress(run: Run, num_steps: int) -> Iterator[None]:
    """Follow `steps.jsonl` until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(run, num_steps, stop), daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(run: Run, num_steps: int, stop: threading.Event) -> None:
    console = Console(stderr=True)
    _, offset = follow_jsonl(run.steps, 0)  # pass over earlier attempts
    columns = (
        TextColumn("[bold]{task.fields[name]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=num_steps, name=run.name, figures="starting workers")
        done = False
        while not done:
            done = stop.wait(_PERIOD_SECONDS)  # once more after the end, for the last lines
            records, offset = follow_jsonl(run.steps, offset)
            for record in records:
                figures = _figures(record["metrics"])
                progress.update(task, completed=record["step"], figures=figures)
                if not console.is_terminal and _is_milestone(record, num_steps):
                    console.print(f"{run.name} step {record['step']}/{num_steps}  {figures}", highlight=False)


def _is_milestone(record: dict[str, object], num_steps: int) -> bool:
    """About ten plain lines a run, and every evaluation."""
    step = int(str(record["step"]))
    return step in (1, num_steps) or step % max(1, num_steps // 10) == 0 or "eval/loss" in str(record["metrics"])


def _figures(metrics: dict[str, float]) -> str:
    parts = [f"loss {float(metrics['train/loss']):.4f}", f"{float(metrics['train/tokens_per_second']):.0f} tokens/s"]
    if "eval/loss" in metrics:
        parts.append(f"held-out {float(metrics['eval/loss']):.4f}")
    return "  ".join(parts)
