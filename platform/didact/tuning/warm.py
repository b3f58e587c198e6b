"""What a search can learn from earlier ones of the same settings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from didact.errors import SpecError
from didact.logs import get_logger
from didact.tuning.objective import Objective
from didact.tuning.searchers import Draw, Seen
from didact.tuning.spaces import Space

_LOG = get_logger(__name__)


def earlier_trials(
    names: Sequence[str], runs_dir: Path, space: Space, objective: Objective, origin: str
) -> tuple[Seen, ...]:
    """Finished trials of earlier sweeps that the space could have drawn and that measured all goals.

    Args:
        names: of the sweeps.
        runs_dir: folder that their folders lie in.
        space: of the new search.
        objective: of the new search.
        origin: the search file, named in errors.

    Raises:
        SpecError: there is no such sweep, or none of its trials fits.
    """
    found: list[Seen] = []
    for number, name in enumerate(names):
        file = runs_dir / name / "results.json"
        if not file.is_file():
            raise SpecError(f"{origin}: warm_start.{number}: found {name!r}, but there is no {file}")
        trials = json.loads(file.read_text(encoding="utf-8"))["trials"]
        measured = [each for trial in trials if (each := _seen(trial, objective)) is not None]
        fitting = [each for each in measured if space.fits(each.draw.values)]
        if not fitting:
            raise SpecError(
                f"{origin}: warm_start.{number}: none of the {len(trials)} trials of sweep {name!r} finished, measured "
                f"{', '.join(objective.metrics)} and drew what this space can draw; remove it"
            )
        _LOG.info("%d of %d trials of sweep %s are learned from", len(fitting), len(trials), name)
        found += fitting
    return tuple(found)


def _seen(trial: dict[str, Any], objective: Objective) -> Seen | None:
    metrics = trial.get("metrics", {})
    losses = objective.losses(metrics)
    if trial["status"] != "finished" or losses is None:
        return None
    draw = Draw(trial["index"], trial["values"], trial["origin"], trial["expected"])
    return Seen(draw, "ended", losses, objective.violations(metrics), metrics)
