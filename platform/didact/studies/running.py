"""Cells run one after the other or, where the cluster has room, beside each other; each an ordinary run.

<runs>/<study>/
    study.json      the study, its cells, why cells failed
    cells/          run folders
    study.html, study.md, study.csv, study.tex
"""

import json
from pathlib import Path
from typing import Any

from didact import env
from didact.cluster import (
    FUSED_AT_ONCE,
    finetune_each,
    is_trained,
    ray_cluster,
    runs_at_once,
    train_together,
)
from didact.connect import check_ray
from didact.logs import get_logger
from didact.runs import Run, check_name_is_free, locked, of_other_settings
from didact.spec import StudySpec
from didact.spec.fusing import fused_groups, why_not_fused
from didact.studies.cells import Cell, Study
from didact.studies.results import StudyResult, is_measured, keep_study, kept_study, read_study

_LOG = get_logger(__name__)


def run_study(study: Study, runs_dir: Path | None = None) -> StudyResult:
    """Run every cell that has no report yet; called again after any interruption, it goes on where it was.

    A cell that fails costs itself: the others run, and it is tried again the next time. Levels, seeds and tables may be
    added to a study that has run; what a cell was run with and measured by may not change.

    Args:
        study: as loaded.
        runs_dir: where the study's folder is made; default `DIDACT_RUNS`.

    Raises:
        RunError: a study of this name exists with other factors or levels, or is in use by another process.
        KeyboardInterrupt: Ctrl-C; what has been reached is kept.
    """
    check_ray()
    folder = ((runs_dir or env.runs_dir()) / study.spec.name).absolute()
    check_name_is_free(folder, "study")
    with locked(folder, "study"):
        _refuse_another(study, folder)
        errors: dict[str, str] = {}
        keep_study(study, folder, errors)
        waiting = [cell for cell in study.cells if not is_measured(Run(folder / "cells" / cell.name))]
        _LOG.info("study %s: %d of %d cells are to be run", study.spec.name, len(waiting), len(study.cells))
        if waiting:
            with ray_cluster():
                _run_cells(study, waiting, folder, errors)
    return read_study(folder)


def _run_cells(study: Study, waiting: list[Cell], folder: Path, errors: dict[str, str]) -> None:
    if study.spec.fused:
        _train_together(study, waiting, folder, errors)
        waiting = [cell for cell in waiting if cell.name not in errors]
    if not waiting:
        return
    room = min(runs_at_once(cell.spec.placement) for cell in waiting)
    at_once = min(study.spec.max_concurrent or room, room)
    for place, error in finetune_each([cell.spec for cell in waiting], folder / "cells", at_once):
        if error is None:
            _LOG.info("cell %s is measured", waiting[place].name)
        else:
            _has_failed(study, waiting[place], error, folder, errors)


def _train_together(study: Study, waiting: list[Cell], folder: Path, errors: dict[str, str]) -> None:
    """Train cells of one base together, as far as their methods allow; all are measured afterwards."""
    untrained = [cell for cell in waiting if not is_trained(Run(folder / "cells" / cell.name), cell.spec)]
    groups = fused_groups([cell.spec for cell in untrained])
    together = {place for group in groups for place in group}
    for place, cell in enumerate(untrained):
        if place not in together:
            reasons = why_not_fused(cell.spec)
            _LOG.info("cell %s is trained alone: %s", cell.name, reasons[0] if reasons else "no other is on its base")
    for group in groups:
        cells = [untrained[place] for place in group]
        _LOG.info("%d cells are trained together on %s", len(cells), cells[0].spec.model.base)
        at_once = study.spec.max_concurrent or FUSED_AT_ONCE
        for place, error in train_together([cell.spec for cell in cells], folder / "cells", at_once):
            if error is not None:
                _has_failed(study, cells[place], error, folder, errors)


def _has_failed(study: Study, cell: Cell, error: str, folder: Path, errors: dict[str, str]) -> None:
    _LOG.warning("cell %s failed: %s", cell.name, error)
    errors[cell.name] = error
    keep_study(study, folder, errors)


def _changed_recipe(kept: dict[str, Any] | None, was: StudySpec, study: Study) -> list[str]:
    """Its fields that differ. Wherever the file lies now: a study may have been opened from an archive."""
    if kept is None:  # written before recipes were kept
        return [] if was.recipe == study.spec.recipe else [f"recipe: was {was.recipe!r}, now {study.spec.recipe!r}"]
    now = json.loads(json.dumps(study.recipe))
    return [
        f"recipe.{field}: was {kept.get(field)!r}, now {now.get(field)!r}"
        for field in dict.fromkeys([*kept, *now])
        if kept.get(field) != now.get(field)
    ]


def _refuse_another(study: Study, folder: Path) -> None:
    """Levels may be added; those that have been run keep their meaning."""
    kept = kept_study(folder)
    if kept is None:
        return
    was = kept.spec
    before, now = was.model_dump(mode="json"), study.spec.model_dump(mode="json")
    changed = [
        f"{key}: was {before[key]!r}, now {now[key]!r}"
        for key in ("overrides", "evaluation")
        if before[key] != now[key]
    ]
    changed += _changed_recipe(kept.recipe, was, study)
    if list(before["factors"]) != list(now["factors"]):
        changed.append(f"factors: were {list(before['factors'])}, now {list(now['factors'])}")
    changed += [
        f"factors.{factor}.{level}: was {was!r}, now {now['factors'][factor].get(level)!r}"
        for factor, levels in before["factors"].items()
        for level, was in levels.items()
        if factor in now["factors"] and now["factors"][factor].get(level, was) != was
    ]
    if changed:
        raise of_other_settings("study", folder, changed)
