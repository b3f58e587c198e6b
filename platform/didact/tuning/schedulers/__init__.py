"""Which trials stop early: Ray's schedulers, with decisions that no interruption changes.

    SweepSpec.scheduler, Objective -> build_scheduler -> what Ray Tune asks at each measurement

A scheduler is asked in the order in which values were measured, and after an interruption asks itself again.

Example:
    >>> from didact.spec.search.schedulers import HalvingSpec
    >>> from didact.tuning.schedulers import rungs_of
    >>> rungs_of(HalvingSpec(grace_steps=10, reduction_factor=2), 50)
    (10, 20, 40)
"""

import math
from pathlib import Path

from didact.spec.search.schedulers import HalvingSpec, MedianSpec, PopulationSpec
from didact.tuning.objective import Objective
from didact.tuning.schedulers.halving import Halving
from didact.tuning.schedulers.median import Median

__all__ = ["Halving", "Median", "build_scheduler", "rungs_of", "words_of"]


def build_scheduler(
    spec: HalvingSpec | MedianSpec | None,
    objective: Objective,
    trials_dir: Path,
    max_steps: int,
    *,
    together: bool = False,
) -> Halving | Median | None:
    """The scheduler that a search file asks for; None lets every trial run to its end.

    Args:
        spec: names it.
        objective: its first goal decides.
        trials_dir: where trials' run folders lie.
        max_steps: of the longest trial.
        together: trials take their steps together.
    """
    match spec:
        case HalvingSpec():
            return Halving(
                objective=objective,
                trials_dir=trials_dir,
                grace=spec.grace,
                reduction_factor=spec.reduction_factor,
                max_steps=max_steps if spec.unit == "step" else None,
                unit=spec.unit,
                brackets=spec.brackets,
                together=together,
            )
        case MedianSpec():
            return Median(
                objective=objective,
                trials_dir=trials_dir,
                grace=spec.grace,
                min_trials=spec.min_trials,
                unit=spec.unit,
            )
        case None:
            return None


def rungs_of(spec: HalvingSpec | MedianSpec | PopulationSpec | None, longest: float) -> tuple[int, ...]:
    """Times at which trials that lag are ended, of the bracket that stops first; none where every time is one.

    Args:
        spec: of the search.
        longest: the longest trial, in the same unit.
    """
    if isinstance(spec, PopulationSpec):
        return tuple(range(spec.interval_steps, math.ceil(longest), spec.interval_steps))
    found: list[int] = []
    if isinstance(spec, HalvingSpec):
        time = float(spec.grace)
        while time < longest:
            found.append(math.ceil(time))
            time *= spec.reduction_factor
    return tuple(found)


def words_of(spec: HalvingSpec | MedianSpec | PopulationSpec | None, longest: float) -> str:
    """Who is stopped when, for people.

    Args:
        spec: of the search.
        longest: the longest trial, in the unit of its time.
    """
    if spec is None:
        return "every trial runs to its end"
    if isinstance(spec, PopulationSpec):
        return (
            f"every {spec.interval_steps:,} steps the worst {spec.quantile:.0%} of the trials end, and copies of the "
            "best go on in their place with changed settings"
        )
    unit = "step" if spec.unit == "step" else "token"
    if spec.grace >= longest:
        return f"no trial can be stopped early: each gets {spec.grace:,} {unit}s, and none has more than {longest:,.0f}"
    if isinstance(spec, MedianSpec):
        return (
            f"from {unit} {spec.grace:,} on, trials whose best is worse than the median of {spec.min_trials} or more "
            "others' means are stopped"
        )
    rungs = ", ".join(f"{rung:,}" for rung in rungs_of(spec, longest))
    beside = f", in {spec.brackets} brackets" if spec.brackets > 1 else ""
    return f"of the trials that come to {unit} {rungs}, one in {spec.reduction_factor:g} goes on each time{beside}"
