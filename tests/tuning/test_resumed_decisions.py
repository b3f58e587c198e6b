"""A sweep that is killed again and again decides as an undisturbed one (row T17 of the fault table).

Ray Tune is replaced by a loop that calls searcher, scheduler and journal in its order; trials are formulas. Kills come
at every moment that leaves other files behind: after a measurement, after a decision, after a trial's end.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from didact.spec import FinetuneSpec, SweepSpec, to_json, validate
from didact.spec.search.schedulers import HalvingSpec, MedianSpec
from didact.spec.search.sweep import GoalSpec
from didact.tracking import JsonLinesTracker, effective_records
from didact.tuning.journal import Entry, Journal
from didact.tuning.objective import Objective
from didact.tuning.proposals import Proposals, index_of
from didact.tuning.schedulers import Halving, Median, build_scheduler
from didact.tuning.searchers import Draw, RandomProposer, Seen
from didact.tuning.spaces import Space

TRIALS, STEPS, RUNGS = 8, 8, (2, 4)
SWEEP = {"name": "s", "recipe": "r.yaml", "space": {"adapter.dropout": {"uniform": [0, 0.5]}}}
OBJECTIVE = Objective((GoalSpec(metric="eval/loss"),))
SPACE = Space(validate(SweepSpec, SWEEP, "s.yaml").space)
SCHEDULERS: dict[str, HalvingSpec | MedianSpec] = {
    "halving": HalvingSpec(grace_steps=RUNGS[0]),
    "halving in tokens": HalvingSpec(grace_tokens=200),
    "hyperband": HalvingSpec(grace_steps=RUNGS[0], brackets=2),
    "median": MedianSpec(rule="median", grace_steps=2, min_trials=1),
    "median in tokens": MedianSpec(rule="median", grace_tokens=200, min_trials=1),
}
RECIPE = {"name": "r", "data": {"sources": [{"name": "a", "path": "/x"}]}, "training": {"steps": STEPS}}


class Killed(Exception):
    """The driver and all trials at once."""


@dataclass
class Machine:
    """What survives a kill: the folder, and how often something happened."""

    folder: Path
    at_once: int
    kills: frozenset[int]
    scheduler: HalvingSpec | MedianSpec
    events: int = 0
    attempts: dict[str, int] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    """Names of trials that were begun, those of earlier attempts included."""

    def happened(self) -> None:
        self.events += 1
        if self.events in self.kills:
            raise Killed

    def steps(self, trial_id: str) -> Path:
        return self.folder / "trials" / f"s-{trial_id}" / "steps.jsonl"


def loss(dropout: float, step: int) -> float:
    return abs(dropout - 0.2) + 1 / step


def attempt(machine: Machine) -> None:
    """One process of the driver, until all trials have ended."""
    journal = Journal(machine.folder / "journal")

    def seen(entry: Entry) -> Seen:
        return Seen(Draw(**entry.sample["draw"]), "ended" if entry.ended else "running")

    search = Proposals(RandomProposer(SPACE, 3), journal, seen, str, total=TRIALS, at_once=machine.at_once)
    state = machine.folder / "searcher.json"
    if state.exists():
        search.restore(str(state))
    halving = build_scheduler(machine.scheduler, OBJECTIVE, machine.folder / "trials", STEPS)
    assert halving is not None
    halving.set_search_properties("eval/loss", "min")
    running: dict[str, JsonLinesTracker] = {}

    def start(trial_id: str) -> None:
        halving.on_trial_add(None, SimpleNamespace(trial_id=trial_id))
        machine.attempts[trial_id] = machine.attempts.get(trial_id, 0) + 1
        running[trial_id] = JsonLinesTracker(machine.steps(trial_id), machine.attempts[trial_id])

    live = json.loads(state.read_text())["live"] if state.exists() else []
    for entry in journal.entries():
        if not entry.ended and machine.steps(entry.trial_id).parent.exists():
            start(entry.trial_id)
        elif entry.ended and entry.trial_id in live:  # its end was not saved: it only reports again what it measured
            search.on_trial_complete(entry.trial_id)
    finished = False
    while not finished or running:
        while not finished and len(running) < machine.at_once:
            trial_id = f"{len(machine.begun):05d}"
            sample = search.suggest(trial_id)
            finished = sample == Searcher.FINISHED
            if finished or sample is None:
                break
            machine.begun.append(trial_id)
            machine.happened()
            search.save(str(state))
            write_recipe(machine, trial_id)
            start(trial_id)
        for trial_id in list(running):
            if advance(machine, halving, journal, running[trial_id], trial_id):
                del running[trial_id]
                search.on_trial_complete(trial_id)
                search.save(str(state))


def write_recipe(machine: Machine, trial_id: str) -> None:
    machine.steps(trial_id).parent.mkdir(parents=True)
    recipe = validate(FinetuneSpec, {**RECIPE, "name": f"s-{trial_id}"}, "r")
    (machine.steps(trial_id).parent / "recipe.json").write_text(to_json(recipe))


def advance(
    machine: Machine, halving: Halving | Median, journal: Journal, tracker: JsonLinesTracker, trial_id: str
) -> bool:
    """A step of a trial, after which its checkpoint is kept; whether that was its last."""
    records = effective_records(machine.steps(trial_id)) if machine.steps(trial_id).exists() else []
    step = len(records) + 1
    entry = journal.find(trial_id)
    assert entry is not None
    if step <= STEPS:
        value = loss(entry.sample["draw"]["values"]["adapter.dropout"], step)
        measured = {"eval/loss": value} if step % 2 == 0 else {}
        tracker.log(step, {"train/loss": 1.0, "train/tokens": 100.0, **measured})
        machine.happened()
        if step % 2:
            return False
        result = {"step": step, "num_steps": STEPS, "tokens": 100.0 * step, "eval/loss": value}
        decision = halving.on_trial_result(None, SimpleNamespace(trial_id=trial_id), result)
        machine.happened()
        if decision == TrialScheduler.CONTINUE and step < STEPS:
            return False
    journal.end(trial_id)
    machine.happened()
    return True


def run(
    folder: Path, at_once: int, scheduler: HalvingSpec | MedianSpec, kills: frozenset[int] = frozenset()
) -> tuple[dict[int, str], Machine]:
    """Index of a draw -> whether its trial finished or was stopped."""
    machine = Machine(folder, at_once, kills, scheduler)
    folder.mkdir()
    while True:
        try:
            attempt(machine)
        except Killed:
            continue
        break
    ended = [entry for entry in Journal(folder / "journal").entries() if entry.ended]
    assert len(ended) == TRIALS
    found = {}
    for entry in ended:
        steps = len(effective_records(machine.steps(entry.trial_id)))
        found[index_of(entry, 0)] = "finished" if steps == STEPS else "stopped"
    assert len(found) == TRIALS, "each draw once"
    return found, machine


@pytest.mark.fault("T17")
@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("rule", SCHEDULERS)
def test_kills_change_no_decision(tmp_path: Path, at_once: int, rule: str) -> None:
    scheduler = SCHEDULERS[rule]
    whole, machine = run(tmp_path / "whole", at_once, scheduler)
    assert set(whole.values()) == {"finished", "stopped"}
    for first in range(1, machine.events, 17 if rule == "halving" else 41):
        found, _ = run(tmp_path / str(first), at_once, scheduler, frozenset({first, first + 12, first + 13}))
        assert found == whole, f"killed at event {first}"
