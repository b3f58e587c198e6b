"""Optuna's samplers over a stored study."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest

from didact.errors import SpecError
from didact.spec import SweepSpec, validate
from didact.tuning.objective import Objective
from didact.tuning.searchers import Draw, OptunaProposer, Seen, build_proposer
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


def test_a_library_that_is_missing_is_named() -> None:
    if find_spec("cmaes") is not None:
        pytest.skip("cmaes is installed here")
    with pytest.raises(SpecError, match="needs the package cmaes"):
        proposer(sampler="cmaes").check()


def test_failed_trials_are_told(tmp_path: Path) -> None:
    search = proposer(tmp_path / "study.db")
    draw = search.propose(0, [])
    search.propose(1, [Seen(draw, "failed")])
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING"]
