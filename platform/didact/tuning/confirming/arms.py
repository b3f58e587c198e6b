"""What is run again, and beside what."""

from collections.abc import Sequence
from dataclasses import dataclass

from didact.files import fingerprint
from didact.spec import FinetuneSpec, set_dotted, validate
from didact.tuning.records import TrialResult
from didact.tuning.search import Search, named_mixtures, trial_spec
from didact.tuning.spaces import Values


@dataclass(frozen=True, slots=True)
class Arm:
    """One draw that is run with every fresh seed."""

    name: str
    """The trial's, or what it is compared with: `uniform`, `proportional`, `recipe`."""
    values: Values
    """What it puts into the recipe, with the length of these runs where they have one of their own."""
    trial: str | None = None
    """Name of the trial; None for what trials are compared with."""


def arms_of(search: Search, ranked: Sequence[TrialResult]) -> tuple[Arm, ...]:
    """The best trials, then what they are compared with.

    The uniform and the proportional mixture take the best trial's other settings, so that a gain is one of the mixture.
    A trial that says the same as one of them is left to it; of trials that say the same the first is run.

    Args:
        search: asks for the confirmation, with the sizes of its sources.
        ranked: trials, best first.
    """
    asked = search.sweep.confirm
    assert asked is not None
    good = [trial for trial in ranked if trial.status != "failed" and trial.allowed and trial.metric is not None]
    if not good:
        return ()
    length: Values = {} if asked.steps is None else {"training.steps": asked.steps, "training.epochs": None}
    best = {**good[0].values, **length}
    mixtures = named_mixtures(search, within_limits=False)
    compared = [Arm(name, {**_of_one_mixture(best, values), **values}) for name, values in mixtures] or [
        Arm("recipe", length)
    ]
    compared = list({_digest(arm.values): arm for arm in reversed(compared)}.values())[::-1]
    known = {_digest(arm.values) for arm in compared}
    chosen: list[Arm] = []
    for trial in good:
        arm = Arm(trial.name, {**trial.values, **length}, trial.name)
        if _digest(arm.values) not in known and len(chosen) < asked.top:
            known.add(_digest(arm.values))
            chosen.append(arm)
    return (*chosen, *compared)


def _of_one_mixture(best: Values, mixture: Values) -> Values:
    """The best trial's values, without mixtures that changed on the way where it is given one for the whole run."""
    schedule = set() if "data.curriculum" in mixture else {"data.curriculum", "data.interpolate"}
    return {path: value for path, value in best.items() if path not in schedule}


def fresh_seeds(search: Search) -> tuple[int, ...]:
    """Seeds that no trial of the search was run with."""
    asked, base = search.sweep.confirm, search.base()
    assert asked is not None
    first = 1 + max(base.training.seed, base.data.seed)
    return tuple(range(first, first + asked.seeds))


def run_name(search: Search, arm: Arm, seed: int) -> str:
    """Of the run of an arm with a seed; other values have other names, so that a run is never taken for another one."""
    name = arm.name if arm.trial else f"{search.sweep.name}-{arm.name}"
    return f"{name}-{_digest(arm.values)}-s{seed}"


def arm_spec(search: Search, arm: Arm, seed: int, tracking_uri: str | None = None) -> FinetuneSpec:
    """The recipe of an arm's run with a seed.

    Raises:
        SpecError: the recipe's schema refuses the values.
    """
    spec = trial_spec(search.recipe, arm.values, run_name(search, arm, seed), search.origin, tracking_uri)
    values = spec.model_dump(mode="json")
    for path in ("training.seed", "data.seed"):
        set_dotted(values, path, seed, search.origin)
    found: FinetuneSpec = validate(FinetuneSpec, values, f"{search.origin}: confirm")
    return found


def _digest(values: Values) -> str:
    return fingerprint(values)[:8]
