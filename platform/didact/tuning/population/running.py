"""A population from its first trials to its last, interval by interval.

<sweep>/population.json     what was decided at each comparison, written before anything follows from it
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from didact.cluster import finetune_each, has_trained
from didact.files import write_json
from didact.logs import get_logger
from didact.runs import Run, branch
from didact.spec.search.schedulers import PopulationSpec
from didact.tracking import effective_records
from didact.tuning.population.deciding import Move, decide
from didact.tuning.population.schedule import boundaries, num_phases, scheduled
from didact.tuning.results import COPY
from didact.tuning.search import trial_name
from didact.tuning.searchers import Draw, Proposer
from didact.tuning.spaces import Values
from didact.tuning.trial import TrialPlan

_LOG = get_logger(__name__)


def run_population(plan: TrialPlan, num_steps: int, proposer: Proposer, total: int) -> None:
    """Train until every trial has ended or failed; called again after an interruption, it goes on where it was.

    Must be called within `ray_cluster`. A trial that fails costs itself; it is tried again the next time, as long as
    the others have not gone on without it.

    Args:
        plan: of the sweep; its journal then holds copies as well.
        num_steps: of a trial.
        proposer: draws the first trials.
        total: of them.

    Raises:
        PlacementError: the cluster will never have room for a trial.
        KeyboardInterrupt: Ctrl-C; what has been reached is kept.
    """
    rule = plan.search.sweep.scheduler
    assert isinstance(rule, PopulationSpec)
    population = _Population(plan, rule, num_steps)
    members = population.begin(proposer, total)
    for step in boundaries(rule, num_steps):
        members = population.train(members, step)
        if step < num_steps:
            members = population.compare(members, step, total)
    for name in members:
        plan.journal.end(name)


@dataclass(frozen=True, slots=True)
class _Population:
    plan: TrialPlan
    rule: PopulationSpec
    num_steps: int

    def begin(self, proposer: Proposer, total: int) -> list[str]:
        """Ids of the first trials."""
        count = num_phases(self.rule.interval_steps, self.num_steps)
        for index in range(total):
            draw = proposer.propose(index, ())
            self._write(_id(index), index, draw.origin, [draw.values] * count)
        return [_id(index) for index in range(total)]

    def train(self, members: list[str], step: int) -> list[str]:
        """Bring all to a step; those that came there."""
        plan, sweep = self.plan, self.plan.search.sweep
        specs = {name: plan.spec(self._sample(name), name) for name in members}
        waiting = [name for name in members if not self._reached(name, step)]
        failed: set[str] = set()
        for name in waiting:
            plan.journal.begin(name, self._sample(name))  # clears why it failed in an earlier attempt
            write_json(
                Run(plan.trials_dir / specs[name].name).trial,
                {"sweep": sweep.name, "trial": name, "values": self._sample(name)["draw"]["values"]},
            )
        if waiting:
            asked = [specs[name] for name in waiting]
            for place, error in finetune_each(
                asked, plan.trials_dir, plan.at_once, parent_run_id=plan.parent_run_id, until=step
            ):
                if error is not None:
                    _LOG.warning("trial %s failed: %s", waiting[place], error)
                    plan.journal.fail(waiting[place], error)
                    failed.add(waiting[place])
        return [name for name in members if name not in failed]

    def compare(self, members: list[str], step: int, total: int) -> list[str]:
        """End the worst, begin copies of the best; the trials that go on."""
        decided = self._decided()
        if str(step) not in decided:
            phase = step // self.rule.interval_steps - 1
            now = {name: self._sample(name)["phases"][phase] for name in members}
            goal = self.plan.search.objective.goals[0]
            scores = {name: self._score(name, step) for name in members}
            moves = decide(self.rule, self.plan.search.space, goal.mode, scores, now, self.plan.search.sweep.seed, step)
            decided[str(step)] = {"members": members, "scores": scores, "moves": [asdict(move) for move in moves]}
            write_json(self._file, decided)
        before = sum(len(each["moves"]) for at, each in decided.items() if int(at) < step)
        going, record = list(decided[str(step)]["members"]), decided[str(step)]
        for number, kept in enumerate(record["moves"]):
            index = total + before + number
            self._replace(Move(**kept), index, step)
            going[going.index(kept["loser"])] = _id(index)
        return going

    def _replace(self, move: Move, index: int, step: int) -> None:
        plan, name = self.plan, _id(index)
        phases, begun = self._sample(move.donor)["phases"], step // self.rule.interval_steps
        donor = trial_name(plan.search.sweep, move.donor)
        self._write(
            name,
            index,
            f"{COPY}{donor} at step {step}",
            [*phases[:begun], *[move.values] * (len(phases) - begun)],
        )
        spec = plan.spec(self._sample(name), name)
        made = Run(plan.trials_dir / spec.name)
        if not made.recipe.is_file():
            _LOG.info("step %d: trial %s ends, and %s goes on as a copy of %s", step, move.loser, name, move.donor)
        branch(Run(plan.trials_dir / donor), made, spec, step)
        plan.journal.end(move.loser)

    def _write(self, name: str, index: int, origin: str, phases: list[Values]) -> None:
        if self.plan.journal.find(name) is None:
            values = scheduled(self.plan.search, phases, self.rule.interval_steps, self.num_steps)
            self.plan.journal.begin(name, {**Draw(index, values, origin).config(), "phases": phases})

    def _sample(self, name: str) -> dict[str, Any]:
        entry = self.plan.journal.find(name)
        assert entry is not None
        return entry.sample

    def _reached(self, name: str, step: int) -> bool:
        run = Run(self.plan.trials_dir / trial_name(self.plan.search.sweep, name))
        if step == self.num_steps:
            return has_trained(run)
        if not run.recipe.is_file():
            return False
        last = max((record.step for record in effective_records(run.steps)), default=0)
        return last > step or (last == step and (run.checkpoints / f"step-{step:08d}").is_dir())

    def _score(self, name: str, step: int) -> float:
        """The first goal at its newest measurement up to a step; NaN without any."""
        run = Run(self.plan.trials_dir / trial_name(self.plan.search.sweep, name))
        measured = [
            value
            for record in effective_records(run.steps)
            if record.step <= step and (value := self.plan.search.objective.value(record.metrics)) is not None
        ]
        return measured[-1] if measured else float("nan")

    @property
    def _file(self) -> Path:
        return self.plan.trials_dir.parent / "population.json"

    def _decided(self) -> dict[str, Any]:
        """Step -> who was there, what they had measured and what was decided."""
        found: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}
        return found


def _id(index: int) -> str:
    return f"{index:05d}"
