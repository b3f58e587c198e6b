"""Who chooses the next trial: what was seen of earlier ones -> a draw from the space.

    SweepSpec.searcher, Space, Objective -> build_proposer -> Proposer.propose(number, seen) -> Draw

A proposer remembers nothing itself: what it proposes depends on the seed, the proposal's number and what was seen.

Example:
    >>> from didact.tuning.searchers import Draw
    >>> Draw(0, {"adapter.r": 8}, "random", None).values
    {'adapter.r': 8}
"""

import json
from collections.abc import Sequence
from pathlib import Path

from didact.spec import SweepSpec
from didact.tuning.objective import Objective
from didact.tuning.searchers.draws import (
    Draw,
    ListedProposer,
    Proposer,
    QuasiRandomProposer,
    RandomProposer,
    Seen,
)
from didact.tuning.searchers.mixture import Findings, MixtureProposer, Response
from didact.tuning.searchers.optuna_study import OptunaProposer
from didact.tuning.searchers.ranking import Ranking, ranking_of
from didact.tuning.spaces import Space, Values

__all__ = [
    "Draw",
    "Findings",
    "ListedProposer",
    "MixtureProposer",
    "OptunaProposer",
    "Proposer",
    "RandomProposer",
    "Ranking",
    "Response",
    "Seen",
    "build_proposer",
    "ranking_of",
]
_FEWEST = 8
_GENERATIONS, _SMALLEST_POPULATION, _LARGEST_POPULATION = 5, 4, 50
"""NSGA-II learns nothing within a generation, the first of which is random: a search has about five, each no larger
than Optuna's own."""


def build_proposer(
    sweep: SweepSpec,
    space: Space,
    objective: Objective,
    *,
    study: Path | None = None,
    starts: Sequence[tuple[str, Values]] = (),
    earlier: Sequence[Seen] = (),
) -> Proposer:
    """The searcher that a search file asks for.

    Args:
        sweep: names it.
        space: what is drawn from.
        objective: what is to be better.
        study: file of Optuna's study; None keeps it in memory.
        starts: named mixtures that `searcher: mixture` tries first.
        earlier: trials of earlier sweeps of the same space.
    """
    match sweep.searcher:
        case "mixture":
            kl = sweep.mixture.space.kl_to_prior if sweep.mixture else 0.0
            initial = sweep.initial or _initial(sweep, space, len(earlier))
            return MixtureProposer(space, objective, sweep.seed, initial, tuple(starts), kl, tuple(earlier))
        case "optuna":
            kinds = {path: kind.model_dump(mode="json", exclude_defaults=True) for path, kind in sweep.space.items()}
            described = json.dumps({"goals": [goal.name for goal in objective.goals], "space": kinds}, sort_keys=True)
            return OptunaProposer(
                space,
                objective,
                sweep.name,
                sweep.sampler,
                sweep.seed,
                study,
                described,
                tuple(earlier),
                max(_SMALLEST_POPULATION, min(_LARGEST_POPULATION, sweep.num_trials // _GENERATIONS)),
            )
        case "quasi_random":
            return QuasiRandomProposer(space, sweep.seed)
        case _:
            return RandomProposer(space, sweep.seed)


def _initial(sweep: SweepSpec, space: Space, known: int) -> int:
    """Trials before the model decides: twice the free coordinates, three times the sources where they are many."""
    sources = len(space.mixtures.names) if space.mixtures else 0
    free = max(_FEWEST, 2 * len(space.drawn) + 2 * sources if sources <= 8 else 3 * sources)
    return max(min(free, sweep.num_trials // 2) - known, 2 if known else min(3, sweep.num_trials))
