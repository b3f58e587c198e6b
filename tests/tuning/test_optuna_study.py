"""Optuna's samplers over a stored study."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from didact.errors import SpecError
from didact.spec import SweepSpec, validate
from didact.tuning.objective import Objective
from didact.tuning.searchers import Draw, OptunaProposer, Proposer, RandomProposer, Seen, build_proposer
from didact.tuning.spaces import Space

SETTINGS = {
    "adapter.method": {"choice": ["lora", "ia3"]},
    "adapter.r": {"randint": [4, 32], "factor": 2, "when": {"adapter.method": "lora"}},
    "adapter.alpha": {"of": "adapter.r", "times": 2},
    "training.learning_rate": {"loguniform": [1e-5, 1e-2]},
}


def proposer(file: Path | None = None, earlier: Any = (), /, **changes: Any) -> OptunaProposer:
    values = {"name": "s", "recipe": "r.yaml", "searcher": "optuna", "space": SETTINGS, "seed": 3, **changes}
    sweep = validate(SweepSpec, values, "s.yaml")
    built = build_proposer(sweep, Space(sweep.space), Objective.of(sweep), study=file, earlier=earlier)
    assert isinstance(built, OptunaProposer)
    return built


def loss(draw: Draw) -> float:
    return abs(draw.values["training.learning_rate"] - 1e-3) * 100 + (draw.values["adapter.method"] == "ia3")


def tried(search: OptunaProposer, count: int, seen: list[Seen] | None = None) -> list[Seen]:
    seen = list(seen or [])
    for index in range(len(seen), count):
        draw = search.propose(index, seen)
        seen.append(Seen(draw, "ended", (loss(draw),) * len(search.objective.goals), (), {"eval/loss": loss(draw)}))
    return seen


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_a_killed_search_goes_on_as_if_nothing_had_been(tmp_path: Path, sampler: Any) -> None:
    search = proposer(tmp_path / "study.db", sampler=sampler)
    seen = tried(search, 4)
    again = proposer(tmp_path / "study.db", sampler=sampler)
    asked = again.propose(4, seen)
    assert proposer(tmp_path / "study.db", sampler=sampler).propose(4, seen) == asked, "asked before the kill"
    kinds = [set(each.draw.values) for each in seen]
    assert all(("adapter.alpha" in kind) == ("adapter.r" in kind) for kind in kinds)


def test_the_study_is_one_that_a_dashboard_opens(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    seen = tried(proposer(file), 3)
    proposer(file).propose(3, seen)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{file}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3 + ["RUNNING"]
    assert study.best_value == min(map(loss, (each.draw for each in seen)))
    assert study.metric_names == ["eval/loss (min)"]
    assert json.loads(study.trials[0].user_attrs["values"]) == seen[0].draw.values


def test_a_stored_study_of_another_space_is_refused(tmp_path: Path) -> None:
    tried(proposer(tmp_path / "study.db"), 1)
    proposer(tmp_path / "study.db").check()
    other = {"adapter.r": {"choice": [4, 8]}}
    with pytest.raises(SpecError, match=r"space: the stored study .*study\.db is of another space"):
        proposer(tmp_path / "study.db", space=other).check()


def test_optuna_learns_from_earlier_sweeps() -> None:
    before = tried(proposer(), 14)
    seen = tried(proposer(None, tuple(before)), 6)
    late = sum(loss(each.draw) for each in seen) / 6
    assert late < sum(loss(each.draw) for each in before[:10]) / 10


NUMBERS = {
    "adapter.r": {"randint": [4, 64], "factor": 2},
    "adapter.dropout": {"uniform": [0, 0.5]},
    "training.learning_rate": {"loguniform": [1e-5, 1e-2]},
}


def bowl(draw: Draw) -> float:
    """Least at rank 16, dropout 0.1 and a rate of 0.001, away from the middle of the space."""
    values = draw.values
    off = (
        math.log2(values["adapter.r"] / 16),
        10 * (values["adapter.dropout"] - 0.1),
        math.log10(values["training.learning_rate"] / 1e-3),
    )
    return sum(each**2 for each in off)


def searched(search: Proposer, count: int, measure: Callable[[Draw], tuple[float, ...]]) -> list[tuple[float, ...]]:
    seen = list[Seen]()
    for index in range(count):
        draw = search.propose(index, seen)
        losses = measure(draw)
        seen.append(Seen(draw, "ended", losses, (), {}))
    return [each.losses or () for each in seen]


def test_cma_es_comes_nearer_than_chance() -> None:
    search = proposer(sampler="cmaes", space=NUMBERS)
    search.check()
    found = [value for (value,) in searched(search, 48, lambda draw: (bowl(draw),))]
    by_chance = [value for (value,) in searched(RandomProposer(search.space, 3), 48, lambda draw: (bowl(draw),))]
    assert sum(found[-12:]) / 12 < 0.35 * sum(found[:12]) / 12, "later generations lie closer to the best"
    assert min(found) < min(by_chance)


def test_a_killed_cma_es_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    def search() -> OptunaProposer:
        return proposer(tmp_path / "study.db", sampler="cmaes", space=NUMBERS)

    draws = [Draw(index, RandomProposer(search().space, 1).propose(index, ()).values, "") for index in range(8)]
    seen = [Seen(draw, "ended", (bowl(draw),), (), {}) for draw in draws]
    asked = search().propose(8, seen)
    assert search().propose(8, seen) == asked, "asked before the kill"


def test_cma_es_begins_where_earlier_sweeps_were_good() -> None:
    before = [
        Seen(Draw(index, values, "random"), "ended", (bowl(Draw(index, values, "")),), (), {})
        for index in range(24)
        if (
            values := RandomProposer(Space(validate(SweepSpec, named(NUMBERS), "s").space), 1).propose(index, ()).values
        )
    ]
    cold, warm = (
        searched(proposer(None, known, sampler="cmaes", space=NUMBERS), 8, lambda draw: (bowl(draw),))
        for known in ((), tuple(before))
    )
    assert sum(value for (value,) in warm[1:]) < sum(value for (value,) in cold[1:])


def named(space: dict[str, Any]) -> dict[str, Any]:
    return {"name": "s", "recipe": "r.yaml", "space": space}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"adapter.r": {"choice": [4, 8]}}, r"space.adapter.r: sampler 'cmaes' draws numbers .* finds choice"),
        (
            {**NUMBERS, "adapter.alpha": {"uniform": [1, 2], "when": {"adapter.r": 4}}},
            r"space.adapter.alpha: sampler 'cmaes' draws numbers that every trial has, and finds when",
        ),
    ],
)
def test_what_cma_es_cannot_draw_is_refused(space: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        proposer(sampler="cmaes", space=space)


def test_a_single_number_is_not_for_cma_es() -> None:
    with pytest.raises(SpecError, match="needs at least two numbers"):
        proposer(sampler="cmaes", space={"adapter.dropout": {"uniform": [0, 0.5]}}).check()


def two_goals(draw: Draw) -> tuple[float, ...]:
    """The front is dropout 0 with any rate: one goal falls with the rate, the other rises (ZDT1; Zitzler, 2000)."""
    rate = math.log10(draw.values["training.learning_rate"] / 1e-5) / 3
    far = 1 + 9 * draw.values["adapter.dropout"] / 0.5 + math.log2(draw.values["adapter.r"] / 4) / 2
    return rate, far * (1 - math.sqrt(rate / far))


def dominated(losses: Sequence[tuple[float, ...]]) -> float:
    """Area between the trials that no other one beats and the point (1.1, 11)."""
    area, right = 0.0, 1.1
    for first, _ in sorted(losses, reverse=True):
        lowest = min(each[1] for each in losses if each[0] <= first)
        area += max(0.0, right - min(right, first)) * max(0.0, 11 - lowest)
        right = min(right, first)
    return area


def test_nsga2_finds_more_of_the_front_than_chance() -> None:
    goals = [{"metric": "eval/a/loss"}, {"metric": "eval/b/loss"}]
    ahead = []
    for seed in (0, 1):
        asked = {"goals": goals, "sampler": "nsga2", "space": NUMBERS, "num_trials": 50, "seed": seed}
        search = proposer(**asked)
        assert search.population == 10
        found = searched(search, 50, two_goals)
        by_chance = searched(RandomProposer(search.space, seed), 50, two_goals)
        ahead.append(dominated(found) - dominated(by_chance))
        assert len(search.objective.front(found)) >= 3, "several trials that no other one beats, which results show"
    assert all(each > 0 for each in ahead), ahead


def test_a_search_that_is_given_more_trials_keeps_its_generations(tmp_path: Path) -> None:
    small = {"sampler": "nsga2", "space": NUMBERS, "num_trials": 20}
    searched(proposer(tmp_path / "study.db", **small), 2, lambda draw: (bowl(draw),))
    grown = proposer(tmp_path / "study.db", **{**small, "num_trials": 400})
    assert grown.population == 50 and grown._study(2).sampler._population_size == 4  # type: ignore[attr-defined]


def test_failed_trials_are_told(tmp_path: Path) -> None:
    search = proposer(tmp_path / "study.db")
    draw = search.propose(0, [])
    search.propose(1, [Seen(draw, "failed")])
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING"]
