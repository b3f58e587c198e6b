"""Population based training without Ray: what is decided, how it is written as recipes, and what a kill leaves."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray.tune.schedulers import pbt

from didact.errors import SpecError
from didact.files import write_json
from didact.spec import FinetuneSpec, SweepSpec, to_json, validate
from didact.spec.search.schedulers import PopulationSpec
from didact.tracking import JsonLinesTracker, effective_records
from didact.tuning import Search, load_search
from didact.tuning.journal import Journal
from didact.tuning.page import render_sweep, sweep_facts
from didact.tuning.population import Move, check_population, decide, scheduled
from didact.tuning.population.running import _Population
from didact.tuning.records import read_trials
from didact.tuning.results import read_results, result_of
from didact.tuning.schedulers import rungs_of, words_of
from didact.tuning.searchers import RandomProposer
from didact.tuning.spaces import Sizes, Values
from didact.tuning.trial import TrialPlan

STEPS, INTERVAL = 8, 2
RULE = PopulationSpec(rule="population", interval_steps=INTERVAL)
RECIPE: dict[str, Any] = {
    "name": "r",
    "data": {
        "sources": [
            *({"name": name, "path": "reasoning-gym:chain_sum", "held_out_rows": 4} for name in "ab"),
            {"name": "asked", "path": "reasoning-gym:chain_sum", "held_out_rows": 4, "weight": 0},
        ]
    },
    "training": {"steps": STEPS, "evaluate_every": 2},
}
SPACE = {
    "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
    "adapter.dropout": {"choice": [0.0, 0.1, 0.2, 0.4]},
    "adapter.r": {"choice": [2, 4]},
    "data.weights": {"mixture": {"sources": ["a", "b"], "floor": 0.1}},
}


def search(folder: Path, recipe: dict[str, Any] = RECIPE, /, **changes: Any) -> Search:
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    rule = {"rule": "population", "interval_steps": INTERVAL}
    values = {"name": "s", "recipe": "r.yaml", "space": SPACE, "num_trials": 4, "scheduler": rule, **changes}
    found = load_search(validate(SweepSpec, values, "s.yaml"), folder / "s.yaml")
    return found.sized(Sizes({"a": 9, "b": 9, "asked": 9}, {"a": 5.0, "b": 5.0, "asked": 5.0}, 64))


def drawn(found: Search, count: int) -> dict[str, Values]:
    return {f"{number}": RandomProposer(found.space, 0).propose(number, ()).values for number in range(count)}


def decided(found: Search, scores: dict[str, float], mode: Any = "min", rule: PopulationSpec = RULE) -> list[Move]:
    return decide(rule, found.space, mode, scores, drawn(found, len(scores)), 0, 4)


def test_the_worst_quarter_copies_the_best(tmp_path: Path) -> None:
    found = search(tmp_path)
    scores = {f"{number}": float(number) for number in range(8)}
    moves = decided(found, scores)
    assert [move.loser for move in moves] == ["7", "6"] or [move.loser for move in moves] == ["6", "7"]
    assert {move.donor for move in moves} <= {"0", "1"}
    assert {move.loser for move in decided(found, scores, "max")} == {"0", "1"}
    assert decided(found, {"0": math.nan, "1": 1.0, "2": 2.0, "3": 9.0})[0].loser == "0", "NaN is the worst"
    assert decided(found, {"0": 1.0}) == [], "none to compare with"


def test_decisions_depend_on_nothing_but_what_was_measured(tmp_path: Path) -> None:
    found = search(tmp_path)
    scores = {f"{number}": 1 / (1 + number) for number in range(8)}
    before = random.getstate()
    moves = decided(found, scores)
    assert random.getstate() == before and pbt.random is random, "the generator of the process is not touched"
    assert decided(found, dict(reversed(scores.items()))) == moves
    assert decide(RULE, found.space, "min", scores, drawn(found, 8), 1, 4) != moves


@pytest.mark.parametrize("resample", [0.0, 1.0])
def test_copies_stay_within_the_space(tmp_path: Path, resample: float) -> None:
    found = search(tmp_path)
    rule = RULE.model_copy(update={"resample_probability": resample, "quantile": 0.5})
    shares = []
    for seed in range(40):
        now = drawn(found, 4)
        for name in now:
            now[name] |= {"training.learning_rate": 9.9e-3, "adapter.dropout": 0.4}
        scores = {name: float(name) for name in now}
        for move in decide(rule, found.space, "min", scores, now, seed, 4):
            assert found.space.fits(move.values)
            assert move.values["adapter.r"] == now[move.donor]["adapter.r"], "what cannot change is its donor's"
            if not resample:
                assert move.values["training.learning_rate"] in (1e-2, pytest.approx(0.8 * 9.9e-3))
                assert move.values["adapter.dropout"] in (0.2, 0.4), "a neighbour"
            before = now[move.donor]["data.sources.a.weight"]
            shares.append(move.values["data.sources.a.weight"] - before)
            total = move.values["data.sources.a.weight"] + move.values["data.sources.b.weight"]
            assert total == pytest.approx(1)
    assert np.count_nonzero(shares) > len(shares) / 3
    assert resample or max(map(abs, shares)) <= 0.11, "factors of 1.2 and 0.8 move a share by a tenth at most"


def test_what_changes_is_written_as_a_recipe(tmp_path: Path) -> None:
    found = search(tmp_path)
    first, later = drawn(found, 2)["0"], drawn(found, 2)["1"]
    values = scheduled(found, [first, first, later], 3, STEPS)
    assert [each["after"] for each in values["training.changes"]] == [3, 6]
    assert values["training.changes"][1]["learning_rate"] == later["training.learning_rate"]
    assert values["training.changes"][1]["dropout"] == later["adapter.dropout"]
    stages = values["data.curriculum"]
    assert [each["until"] for each in stages] == [3 / 8, 6 / 8, 1.0]
    assert stages[0]["weights"] == {
        "a": first["data.sources.a.weight"], "b": first["data.sources.b.weight"], "asked": 0,
    }  # fmt: skip
    assert stages[2]["weights"]["a"] == later["data.sources.a.weight"]
    assert values["adapter.r"] == first["adapter.r"] and "training.steps" not in values
    epochs = {**RECIPE, "training": {"epochs": 1, "evaluate_every": 2}}
    assert scheduled(search(tmp_path, epochs), [first] * 3, 3, STEPS)["training.steps"] == STEPS


def population(folder: Path) -> _Population:
    folder.mkdir(exist_ok=True)
    plan = TrialPlan(search(folder), folder / "trials", Journal(folder / "journal"), "sqlite:///x.db", None)
    return _Population(plan, RULE, STEPS)


def came_to(made: _Population, name: str, step: int, loss: float) -> None:
    """What training until a step leaves of a trial, as far as comparisons look at it."""
    run = made.plan.trials_dir / f"s-{name}"
    spec = made.plan.spec(made._sample(name), name)
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.json").write_text(to_json(spec))
    tracker = JsonLinesTracker(run / "steps.jsonl", 1)
    for number in (step - 1, step):
        tracker.log(number, {"train/loss": 1.0, **({"eval/loss": loss} if number == step else {})})
    (run / "checkpoints" / f"step-{step:08d}").mkdir(parents=True, exist_ok=True)
    write_json(run / "checkpoints" / f"step-{step:08d}" / "MANIFEST.json", {"of": name})


def test_a_copy_takes_the_place_of_the_worst(tmp_path: Path) -> None:
    made = population(tmp_path)
    members = made.begin(RandomProposer(made.plan.search.space, 0), 4)
    assert members == ["00000", "00001", "00002", "00003"]
    for number, name in enumerate(members):
        came_to(made, name, 2, 1.0 + number)
        assert made._reached(name, 2)
    going = made.compare(members, 2, 4)
    assert going == ["00000", "00001", "00002", "00004"] and made.plan.journal.find("00003").ended  # type: ignore[union-attr]
    copy = made.plan.trials_dir / "s-00004"
    assert [each.step for each in effective_records(copy / "steps.jsonl")] == [1, 2]
    assert json.loads((copy / "branch" / "step-00000002" / "MANIFEST.json").read_text()) == {"of": "00000"}
    donor, sample = made._sample("00000"), made._sample("00004")
    assert (
        sample["phases"][0] == donor["phases"][0] and sample["phases"][1] == sample["phases"][3] != donor["phases"][1]
    )
    spec = validate(FinetuneSpec, json.loads((copy / "recipe.json").read_text()), "copy")
    assert [each.after for each in spec.training.changes] == [2, 4, 6] and spec.data.curriculum[1].until == 0.5
    trials = read_trials(made.plan)
    assert trials[4].origin == "copy of s-00000 at step 2" and trials[4].metric == 1.0
    found = result_of("s", made.plan.search.objective, trials)
    found.save(tmp_path)
    columns = dict(read_results(tmp_path).columns())
    assert "s-00000 at step 2" in columns["copy of"]
    assert any(cell.startswith("after 2, learning_rate 0.") for cell in columns["changes"])
    facts = sweep_facts(read_results(tmp_path))
    shares = {"data.sources.a.weight", "data.sources.b.weight"}
    assert {each.path for each in facts.settings} == SPACE.keys() - {"data.weights"} | shares, "schedules are no axis"
    assert "copy of" in render_sweep(facts) and "s-00000 at step 2" in render_sweep(facts)


def test_a_kill_between_a_decision_and_what_follows_changes_nothing(tmp_path: Path) -> None:
    samples = []
    for folder, killed in ((tmp_path / "whole", False), (tmp_path / "killed", True)):
        made = population(folder)
        members = made.begin(RandomProposer(made.plan.search.space, 0), 4)
        for number, name in enumerate(members):
            came_to(made, name, 2, 1.0 + number)
        if killed:
            made.compare(members, 2, 4)
            for name in ("journal/00004.json", "trials/s-00004/recipe.json"):
                (folder / name).unlink()
            entry = made.plan.journal.find("00003")
            assert entry is not None
            (folder / "journal" / "00003.json").write_text(json.dumps({"trial_id": "00003", "sample": entry.sample}))
            made = population(folder)
            assert made.begin(RandomProposer(made.plan.search.space, 0), 4) == members
        going = made.compare(members, 2, 4)
        came_to(made, "00002", 4, 0.1)
        for name in ("00000", "00001", "00004"):
            came_to(made, name, 4, 5.0 + int(name))
        assert made.compare(going, 4, 4) == ["00000", "00001", "00002", "00005"]
        samples.append([made.plan.journal.find(f"{number:05d}") for number in range(6)])
    assert samples[0] == samples[1]


def test_a_member_that_failed_is_not_compared(tmp_path: Path) -> None:
    made = population(tmp_path)
    members = made.begin(RandomProposer(made.plan.search.space, 0), 4)
    for number, name in enumerate(members[1:]):
        came_to(made, name, 2, 1.0 + number)
    made.plan.journal.fail("00000", "no room")
    assert made.compare(members[1:], 2, 4) == ["00001", "00002", "00004"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {"adapter.r": {"choice": [2, 4]}}}, "space draws none of them"),
        (
            {"scheduler": {"rule": "population", "interval_steps": 3}},
            "scheduler.interval_steps: found 3, but eval/loss is measured every 2 steps",
        ),
        ({"scheduler": {"rule": "population", "interval_steps": 8}}, "found 8, but trials have 8 steps"),
        ({"space": {**SPACE, "training.steps": {"choice": [8, 10]}}}, "space.training.steps: trials of a population"),
        (
            {"space": {**SPACE, "adapter.alpha": {"of": "training.learning_rate", "times": 1000}}},
            "space.adapter.alpha follows training.learning_rate, which changes on the way",
        ),
        (
            {"space": {"data.weights": {"mixture": {"sources": ["a", "b"], "curriculum": {"until": [0.2, 0.8]}}}}},
            "a population finds when mixtures change",
        ),
    ],
)
def test_a_population_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    found = search(tmp_path, **changes)
    assert isinstance(found.sweep.scheduler, PopulationSpec)
    with pytest.raises(SpecError, match=said):
        check_population(found, found.sweep.scheduler, STEPS)


def test_a_recipe_that_changes_by_itself_is_refused(tmp_path: Path) -> None:
    training = {**RECIPE["training"], "changes": [{"after": 2, "learning_rate": 1e-3}]}
    found = search(tmp_path, {**RECIPE, "training": training})
    with pytest.raises(SpecError, match=r"training\.changes would be replaced"):
        check_population(found, RULE, STEPS)
    found = search(tmp_path, {**RECIPE, "data": {**RECIPE["data"], "online_mixing": {}}})
    with pytest.raises(SpecError, match=r"data\.online_mixing changes mixtures as a population does"):
        check_population(found, RULE, STEPS)
    check_population(search(tmp_path), RULE, STEPS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"searcher": "optuna"}, "begins with random trials; found searcher 'optuna'"),
        ({"num_trials": 1}, "compares trials; found num_trials 1"),
        ({"patience": 3}, "patience has no effect on a population"),
        ({"budget": "2h"}, "budget has no effect on a population"),
        ({"space": {"adapter.r": {"grid": [2, 4]}}}, "use choice in place of grid"),
        ({"confirm": {"steps": 99}}, "confirm.steps would stretch schedules"),
        ({"scheduler": {"rule": "population"}}, "scheduler.interval_steps: missing"),
    ],
)
def test_what_goes_with_no_population_is_refused(changes: dict[str, Any], said: str) -> None:
    rule = {"rule": "population", "interval_steps": INTERVAL}
    values = {"name": "s", "recipe": "r.yaml", "space": SPACE, "num_trials": 4, "scheduler": rule, **changes}
    with pytest.raises(SpecError, match=said):
        validate(SweepSpec, values, "s.yaml")


def test_words_and_rungs() -> None:
    assert rungs_of(RULE, STEPS) == (2, 4, 6)
    assert words_of(RULE, STEPS).startswith("every 2 steps the worst 25% of the trials end, and copies of the best")
