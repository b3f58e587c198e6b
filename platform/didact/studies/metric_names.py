"""Metrics that a table asks for and nothing measures: by the tasks before a study runs, by its reports afterwards."""

import difflib
from collections.abc import Collection, Iterator

from didact.spec import StudySpec
from didact.spec.evaluation import reported_names

_LOSS, _ALIKE = "eval/loss", 0.5


def of_no_task(spec: StudySpec) -> Iterator[str]:
    """What is wrong with the metrics that tables name, as far as the tasks of the evaluation tell."""
    losses = any(task.task == "held_out" for task in spec.evaluation.tasks)
    names = reported_names(spec.evaluation.tasks)
    for place, table in enumerate(spec.tables):
        for metric in table.metrics:
            parts = metric.split("/")
            known = len(parts) > 2 and parts[0] == "eval" and parts[1] in names
            if known or (losses and (metric == _LOSS or (len(parts) > 2 and parts[-1] == "loss"))):
                continue
            task = _nearest(parts[1] if len(parts) > 2 else parts[0], names)
            meant = [f"eval/{task}/{parts[-1]}"] if task and len(parts) > 1 else []
            meant += [_LOSS] if losses and parts[-1] == "loss" else []
            yield _said(place, metric, "no task of this study measures", meant[0] if meant else None, names)


def unmeasured(spec: StudySpec, measured: Collection[str]) -> tuple[str, ...]:
    """Metrics of tables that no report holds, each with the nearest that one does.

    Args:
        spec: of the study.
        measured: all metrics of all reports.
    """
    names = reported_names(spec.evaluation.tasks)
    return tuple(
        _said(place, metric, "no cell measured", _nearest(metric, measured), names)
        for place, table in enumerate(spec.tables)
        for metric in table.metrics
        if metric not in measured
    )


def _nearest(name: str, known: Collection[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)), None)


def _said(place: int, metric: str, why: str, near: str | None, names: Collection[str]) -> str:
    expected = f"did you mean {near!r}?" if near else f"expected eval/TASK/METRIC, TASK one of {', '.join(names)}"
    return f"tables.{place}.metrics: found {metric!r}, which {why}; {expected}"
