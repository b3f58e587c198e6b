"""A run's own record of its numbers: one JSON line per call, and how they are read after restarts.

`steps.jsonl` is the truth about a run; everything else (MLflow, tables, plots) is made from it. JSON has no NaN, so
values that are not finite are written as the strings "NaN", "Infinity" and "-Infinity" and read back as numbers.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from didact import files

_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What is known of one optimizer step."""

    step: int
    time_ms: int
    """When the step was logged, in milliseconds since 1970."""
    attempt: int
    metrics: dict[str, float]
    sample_ids: tuple[str, ...] | None = None
    """`source/row` of the global batch, in mixture order."""
    loss_hex: str | None = None
    """The loss as `float.hex()`, for exact comparison of two runs."""
    draws: dict[str, int] | None = None
    """Samples of each source that later steps draw, where `data.online_mixing` decided that after this one."""


class JsonLinesTracker:
    """Appends one line per call: `{"step", "time_ms", "attempt", "metrics", ...extra}`.

    One process writes a file at a time. Several calls may describe one step (training first, then evaluation).
    `sample_ids` (sequence of str), `loss_hex` (str) and `draws` (source -> int) come back in `StepRecord`; other extras
    stay in the file.
    """

    def __init__(self, path: Path, attempt: int) -> None:
        """Write to `path` as this attempt (see `last_attempt`)."""
        self._path = path
        self._attempt = attempt

    def log(self, step: int, metrics: dict[str, float], **extra: Any) -> None:
        """Append one line; `time_ms` is now. Values may be of any type that `float()` takes."""
        written = {key: _encode(float(value)) for key, value in metrics.items()}
        line = {"step": step, "time_ms": time.time_ns() // 1_000_000, "attempt": self._attempt, "metrics": written}
        files.append_jsonl(self._path, {**line, **extra})


def last_attempt(path: Path) -> int:
    """The attempt that wrote the last line, 0 when there is none.

    A restarted worker logs as `last_attempt(path) + 1`. What is added after training (final evaluation) must log as
    `last_attempt(path)`: a new attempt number would supersede the steps it names.
    """
    attempt = 0
    for record in read_records(path):
        attempt = record.attempt
    return attempt


def effective_records(path: Path) -> list[StepRecord]:
    """One record per step of the lineage that counts, ordered by step.

    An attempt that begins again at step k supersedes every earlier record with step >= k. Lines of one attempt about
    the same step are merged: the first line's time, the later line's values.
    """
    return effective(read_records(path))


def effective(records: Iterable[StepRecord]) -> list[StepRecord]:
    """`effective_records` of records in the order they were written."""
    by_step: dict[int, StepRecord] = {}
    newest: dict[str, int] = {}
    attempt: int | None = None
    for record in records:
        # A key that goes back is a restart too, should a caller have kept its attempt number.
        goes_back = any(record.step < newest.get(key, record.step) for key in record.metrics)
        if record.attempt != attempt or goes_back:
            by_step = {step: kept for step, kept in by_step.items() if step < record.step}
            attempt, newest = record.attempt, {}
        by_step[record.step] = _merged(by_step.get(record.step), record)
        newest.update(dict.fromkeys(record.metrics, record.step))
    return [by_step[step] for step in sorted(by_step)]


def read_records(path: Path, start: int = 0, end: int | None = None) -> Iterator[StepRecord]:
    """Every complete line between two byte offsets, as written. Unreadable lines are passed over."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        position = stream.seek(start)
        for line in stream:
            position += len(line)
            if not line.endswith(b"\n") or (end is not None and position > end):
                return
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                yield _record(json.loads(line))


def complete_size(path: Path) -> int:
    """Bytes up to the end of the last complete line; 0 without a file."""
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        position = stream.seek(0, 2)
        while position > 0:
            begin = max(0, position - 65536)
            stream.seek(begin)
            found = stream.read(position - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            position = begin
    return 0


def _record(line: dict[str, Any]) -> StepRecord:
    sample_ids = line.get("sample_ids")
    return StepRecord(
        step=line["step"],
        time_ms=line["time_ms"],
        attempt=line["attempt"],
        metrics={key: float(value) for key, value in line["metrics"].items()},
        sample_ids=None if sample_ids is None else tuple(sample_ids),
        loss_hex=line.get("loss_hex"),
        draws=line.get("draws"),
    )


def _merged(first: StepRecord | None, later: StepRecord) -> StepRecord:
    if first is None:
        return later
    return replace(
        first,
        metrics={**first.metrics, **later.metrics},
        sample_ids=first.sample_ids if later.sample_ids is None else later.sample_ids,
        loss_hex=first.loss_hex if later.loss_hex is None else later.loss_hex,
        draws=first.draws if later.draws is None else later.draws,
    )


def _encode(value: float) -> float | str:
    return value if math.isfinite(value) else _NOT_FINITE.get(value, "NaN")
