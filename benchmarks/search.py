"""What 64 trials cost the driver of a search: proposals and judgements a second, and whether later ones take longer.

    PYTHONPATH=platform python benchmarks/search.py [--trials 64]

Trials train nothing: they leave the run folders that real ones leave, with recipe, steps and held-out losses, over
which the driver proposes a trial and judges a measurement, one trial after the other.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from didact.runs import Run
from didact.spec import SweepSpec, to_json, validate
from didact.tracking import JsonLinesTracker
from didact.tuning import load_search
from didact.tuning.journal import Journal
from didact.tuning.proposals import Proposals
from didact.tuning.records import read_trial, seen_of
from didact.tuning.schedulers import build_scheduler
from didact.tuning.search import named_mixtures
from didact.tuning.searchers import build_proposer
from didact.tuning.trial import TrialPlan

STEPS, MEASURED = 16, (2, 4, 8)
RECIPE = {
    "name": "made-up",
    "data": {"sources": [{"name": name, "path": f"{name}.jsonl", "held_out_rows": 8} for name in ("first", "second")]},
    "training": {"steps": STEPS, "evaluate_every": 2},
}
SPACE = {
    "training.learning_rate": {"loguniform": [1e-4, 3e-3]},
    "data.weights": {"mixture": {"floor": 0.05}},
}
SEARCHERS: dict[str, dict[str, Any]] = {
    "random": {"scheduler": {"grace_steps": 2, "reduction_factor": 4}},
    "optuna": {"searcher": "optuna", "scheduler": {"grace_steps": 2, "reduction_factor": 4}},
    "mixture": {"searcher": "mixture"},
}


def decide(folder: Path, name: str, trials: int) -> dict[str, list[float]]:
    """What is decided -> seconds of each decision, in their order."""
    values = {"name": name, "recipe": "recipe.yaml", "space": SPACE, "num_trials": trials, **SEARCHERS[name]}
    search = load_search(validate(SweepSpec, values, "made up"), folder / "search.yaml")
    root = folder / name
    plan = TrialPlan(search, root / "trials", Journal(root / "journal"), "none", None)
    proposer = build_proposer(
        search.sweep, search.space, search.objective, study=folder / "study.db", starts=named_mixtures(search)
    )
    proposals = Proposals(
        proposer,
        plan.journal,
        lambda entry: seen_of(read_trial(plan, entry), search.objective),
        lambda draw: plan.spec(draw.config(), "checked"),
        total=trials,
        at_once=1,
    )
    scheduler = build_scheduler(search.sweep.scheduler, search.objective, plan.trials_dir, STEPS)
    if scheduler is not None:
        scheduler.set_search_properties(search.objective.name, "min")
    taken: dict[str, list[float]] = {"proposals": [], **({"judgements": []} if scheduler else {})}

    def timed(what: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = act()
        taken[what].append(time.perf_counter() - began)
        return result

    for number in range(trials):
        trial = SimpleNamespace(trial_id=f"{number:05d}")
        timed("proposals", lambda trial=trial: proposals.suggest(trial.trial_id))
        run_made_up(plan, trial, scheduler, timed)
        plan.journal.end(trial.trial_id)
        proposals.on_trial_complete(trial.trial_id)
    return taken


def run_made_up(plan: TrialPlan, trial: Any, scheduler: Any, timed: Callable[[str, Callable[[], Any]], Any]) -> None:
    """What a trial leaves in its folder, and what the scheduler says of it."""
    entry = plan.journal.find(trial.trial_id)
    spec = plan.spec(entry.sample, trial.trial_id)
    run = Run(plan.trials_dir / spec.name)
    run.path.mkdir(parents=True)
    (run.path / "recipe.json").write_text(to_json(spec))
    tracker, rate = JsonLinesTracker(run.steps, 1), spec.training.learning_rate
    if scheduler is not None:
        scheduler.on_trial_add(None, trial)
    for step in range(1, STEPS + 1):
        loss = abs(rate - 1e-3) + 1 / step
        tracker.log(
            step, {"train/loss": loss, "train/tokens": 100.0, **({"eval/loss": loss} if step in MEASURED else {})}
        )
        if step in MEASURED and scheduler is not None:
            told = {"step": step, "num_steps": STEPS, "tokens": 100.0 * step, plan.search.objective.name: loss}
            if timed("judgements", lambda told=told: scheduler.on_trial_result(None, trial, told)) == "STOP":
                return


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=64)
    asked = parser.parse_args()
    print("| searcher | decision | a second | ms in the first quarter | in the last | of the first |")
    print("|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="didact-search-") as folder:
        (Path(folder) / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        for name in SEARCHERS:
            for what, taken in decide(Path(folder), name, asked.trials).items():
                quarter = len(taken) // 4
                early, late = (1000 * statistics.median(each) for each in (taken[:quarter], taken[-quarter:]))
                rate = len(taken) / sum(taken)
                print(f"| {name} | {what} | {rate:,.1f} | {early:.1f} | {late:.1f} | {late / early:.1f} |", flush=True)


if __name__ == "__main__":
    main()
