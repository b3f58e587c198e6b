"""From a search file and its prepared data to the plan of its budget."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from didact import env
from didact.capacity import asked_by_worker
from didact.connect import cluster_to_join
from didact.devices import num_gpus
from didact.errors import SpecError
from didact.files import write_json
from didact.preparation import DataFacts, PreparedData
from didact.spec import FinetuneSpec, PlacementSpec
from didact.spec.search.budget import parse_budget
from didact.spec.search.schedulers import HalvingSpec
from didact.spec.search.sweep import ConfirmSpec
from didact.tuning.budget.pace import Pace, measured_pace, pace_of_earlier_runs
from didact.tuning.budget.plan import BudgetPlan, Prices, spread
from didact.tuning.search import Search


def kept_plan(file: Path) -> BudgetPlan | None:
    """The plan that a sweep was begun with; None before it has begun."""
    if not file.is_file():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    return BudgetPlan(
        **{
            **kept,
            "prices": Prices(**kept["prices"]),
            "rungs": tuple(kept["rungs"]),
            "confirm": ConfirmSpec(**kept["confirm"]) if kept["confirm"] else None,
            "pace": Pace(**kept["pace"]) if kept["pace"] else None,
        }
    )


def keep_plan(plan: BudgetPlan, file: Path) -> None:
    """Write a plan down, so that a continued sweep goes by it."""
    confirm = plan.confirm.model_dump(mode="json") if plan.confirm else None
    write_json(file, {**asdict(plan), "confirm": confirm})


def plan_budget(search: Search, longest: FinetuneSpec, prepared: PreparedData, runs_dir: Path) -> BudgetPlan:
    """Decide on trials, rungs and runs with fresh seeds. Starts no Ray; may measure a few steps.

    Args:
        search: states a budget.
        longest: its longest trial.
        prepared: the data of that one.
        runs_dir: where earlier runs are looked for.

    Raises:
        SpecError: the budget is smaller than one trial, money without a price, or a grid; names file and field.
    """
    sweep = search.sweep
    assert sweep.budget is not None
    budget, field = parse_budget(sweep.budget), f"{search.origin}: budget"
    if len(search.space.grid_points()) > 1:
        raise SpecError(f"{field}: a grid is tried in full, whatever it costs; use choice, or num_trials in its place")
    tokens = sum(source.tokens_seen for source in DataFacts.of(longest, prepared).sources)
    steps = prepared.num_steps
    again = tokens * (sweep.confirm.steps / steps if sweep.confirm and sweep.confirm.steps else 1.0)
    compared = 2 if sweep.mixture else 1
    pace: Pace | None = None
    if budget.unit == "tokens":
        amount, prices = budget.amount, Prices("tokens", tokens, again, compared=compared)
    else:
        amount = budget.amount
        if budget.unit == "dollars":
            amount *= 3600 / _price(sweep.price_per_hour, field, sweep.budget)
        pace = pace_of_earlier_runs(longest, runs_dir, elsewhere=cluster_to_join() is not None)
        pace = pace or measured_pace(longest)
        room = _runs_at_once(longest.placement)
        at_once = max(1, min(sweep.max_concurrent or room, room))
        prices = Prices("seconds", pace.seconds(tokens), pace.seconds(again), pace.start_seconds, at_once, compared)
    # With the mixture searcher, or with `scheduler: null`, trials have equal lengths.
    halving = sweep.scheduler if isinstance(sweep.scheduler, HalvingSpec) else None
    coordinates = sum(search.space.blocks)
    try:
        return spread(
            sweep.budget,
            amount,
            prices,
            num_steps=steps,
            every=_every(search, longest),
            enough=max(8, 4 * coordinates),
            reduction_factor=halving.reduction_factor if halving else None,
            confirm=sweep.confirm,
            choose_confirm="confirm" not in sweep.model_fields_set,
            pace=pace,
        )
    except ValueError as error:
        raise SpecError(f"{field}: {error}") from None


def _every(search: Search, longest: FinetuneSpec) -> int:
    """Steps between measurements of the first goal."""
    weights = search.objective.goals[0].weights
    held_out = any(metric.startswith("eval/") for metric in weights)
    return (longest.training.evaluate_every or 1) if held_out else 1


def _price(stated: float | None, field: str, written: str) -> float:
    price = stated or env.price_per_hour()
    if price is None:
        raise SpecError(
            f"{field}: found {written!r}, but no price; set price_per_hour, what the whole cluster costs an hour, or "
            "DIDACT_PRICE_PER_HOUR"
        )
    return price


def _runs_at_once(placement: PlacementSpec) -> int:
    """As `cluster.runs_at_once` would say, told without joining or starting Ray."""
    cluster = cluster_to_join()
    on_gpu = placement.device == "gpu" or (
        placement.device == "auto" and (cluster.has_gpus() if cluster else num_gpus() > 0)
    )
    if cluster is not None:
        ask = asked_by_worker(placement.cpus_per_worker, use_gpu=on_gpu, accelerator_type=placement.accelerator_type)
        return cluster.most(ask) // placement.max_workers
    room = num_gpus() if on_gpu else (os.cpu_count() or 1) // placement.cpus_per_worker
    return room // placement.max_workers
