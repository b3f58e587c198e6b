"""How long a run takes: from earlier runs of the same kind, or measured by a few steps."""

import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from didact.evaluation import task_texts
from didact.preparation import probe_recipe
from didact.runs import Run, processor
from didact.spec import FinetuneSpec, with_absolute_paths
from didact.tracking import StepRecord, effective_records
from didact.tuning.objective import costs

_WHERE = ("*", "*/trials/*", "*/confirm/*", "*/cells/*")
_ALIKE = (
    *("model.base", "model.dtype", "adapter.method", "tokens.max_length", "training.global_batch_size"),
    *("training.micro_batch_size", "placement.num_workers", "placement.cpus_per_worker", "placement.device"),
)
_MOST_LOOKED_AT, _MOST_USED, _FEWEST_STEPS = 400, 8, 4
_PROBE_STEPS = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """Of one run of this recipe."""

    tokens_per_second: float
    """Of all its workers together."""
    start_seconds: float
    """Before its first step: processes, data, base."""
    source: str
    """Where this is known from, in words."""

    def seconds(self, tokens: float) -> float:
        """Of a run that learns so many tokens."""
        return self.start_seconds + tokens / self.tokens_per_second


def pace_of_earlier_runs(spec: FinetuneSpec, runs_dir: Path, *, elsewhere: bool = False) -> Pace | None:
    """The median of the newest runs with the same base, method, batch and workers; None where there is none.

    Args:
        spec: the recipe.
        runs_dir: where runs, trials, cells of studies are looked for.
        elsewhere: workers are on other machines than this one, so that its processor says nothing.
    """
    wanted = _kind(with_absolute_paths(spec).model_dump(mode="json"))
    here = None if elsewhere else processor()
    found = [file for pattern in _WHERE for file in runs_dir.glob(f"{pattern}/recipe.json")]
    newest = sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)[:_MOST_LOOKED_AT]
    paces: list[tuple[float, float | None]] = []
    for file in newest:
        if len(paces) == _MOST_USED:
            break
        if _kind(json.loads(file.read_text(encoding="utf-8"))) == wanted:
            paces += list(_pace_of(Run(file.parent), here))
    if not paces:
        return None
    starts = [start for _, start in paces if start is not None]
    words = "an earlier run" if len(paces) == 1 else f"{len(paces)} earlier runs"
    return Pace(
        statistics.median(rate for rate, _ in paces),
        statistics.median(starts) if starts else 0.0,
        f"{words} of this base",
    )


def measured_pace(spec: FinetuneSpec) -> Pace:
    """A few steps on this machine, of one worker; the others are taken to be as fast.

    Raises:
        DidactError: as `probe_recipe`.
    """
    begun = time.monotonic()
    probe = probe_recipe(spec, _PROBE_STEPS, task_texts)
    spent = time.monotonic() - begun
    workers = spec.placement.min_workers
    return Pace(probe.tokens_per_second * workers, spent, f"{_PROBE_STEPS} steps that were measured here just now")


def _kind(recipe: dict[str, Any]) -> tuple[Any, ...]:
    def of(path: str) -> Any:
        value: Any = recipe
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    return tuple(json.dumps(of(path), sort_keys=True) for path in _ALIKE)


def _pace_of(run: Run, here: str | None) -> Iterator[tuple[float, float | None]]:
    """Tokens a second and seconds before the first step; nothing of runs of another processor or of few steps."""
    attempts = _lines(run.path / "provenance.jsonl")
    if not run.steps.is_file() or (here and attempts and attempts[-1].get("processor", here) != here):
        return
    records = effective_records(run.steps)
    spent = costs(records)
    if len(records) < _FEWEST_STEPS or not spent["cost/tokens"] or not spent["cost/seconds"]:
        return
    start = _start(records, attempts[0]) if len(attempts) == 1 else None
    yield spent["cost/tokens"] / spent["cost/seconds"], start


def _start(records: list[StepRecord], attempt: dict[str, Any]) -> float | None:
    begun = datetime.fromisoformat(attempt["time"]).timestamp()
    step = costs(records)["cost/seconds"] / len(records)
    return max(0.0, records[0].time_ms / 1000 - begun - step)


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split(os.linesep) if line.strip()]
