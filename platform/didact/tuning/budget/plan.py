"""What a budget is spent on. Pure figures; nothing is started or read here."""

import math
from dataclasses import dataclass
from typing import Literal

from didact.spec import SweepSpec
from didact.spec.search.schedulers import HalvingSpec, MedianSpec
from didact.spec.search.sweep import ConfirmSpec
from didact.tuning.budget.pace import Pace

Unit = Literal["tokens", "seconds"]
_CONFIRMED_SHARE = 1 / 3
"""Most of the budget that runs with fresh seeds get where the file says nothing of them."""
_CONFIRMATIONS = ((3, 3), (3, 2), (2, 2), (1, 2))
"""Trials and seeds of these, the first that fits."""
SLACK = 0.1
"""A budget is kept within this share of itself."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What runs cost, in the budget's unit; seconds as one run alone takes them."""

    unit: Unit
    full: float
    """A trial that is not stopped."""
    confirmed: float
    """A run with a fresh seed."""
    start: float = 0.0
    """Part of `full` that a trial costs before its first step."""
    at_once: int = 1
    """Runs beside each other; they share time, not tokens."""
    compared: int = 2
    """Arms that confirmed trials are compared with."""

    def confirmation(self, top: int, seeds: int) -> float:
        """What it costs to run so many trials again."""
        runs = (top + self.compared) * seeds
        rounds = math.ceil(runs / self.at_once) if self.unit == "seconds" else runs
        return rounds * self.confirmed

    def search(self, trials: int, mean: float) -> float:
        """What so many trials of this mean cost cost together."""
        if self.unit == "tokens":
            return trials * mean
        return max(mean, trials * mean / self.at_once)


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """How a budget is spent."""

    written: str
    """As the user wrote it."""
    amount: float
    """In `prices.unit`."""
    prices: Prices
    trials: int
    num_steps: int
    """Of a trial that is not stopped."""
    rungs: tuple[int, ...]
    """Steps at which trials that lag are stopped; empty: none is."""
    reduction_factor: float
    mean: float
    """What a trial is expected to cost."""
    confirm: ConfirmSpec | None
    pace: Pace | None = None
    """None where the budget is in tokens."""

    @property
    def confirm_cost(self) -> float:
        """Of the runs with fresh seeds."""
        return self.prices.confirmation(self.confirm.top, self.confirm.seeds) if self.confirm else 0.0

    @property
    def search_cost(self) -> float:
        """Of all trials, as expected."""
        return self.prices.search(self.trials, self.mean)

    @property
    def most_trials(self) -> int:
        """More are never begun, whatever trials turn out to cost."""
        return 2 * self.trials + 4

    def applied(self, sweep: SweepSpec) -> SweepSpec:
        """The search with what the budget decides."""
        stopping: list[HalvingSpec | MedianSpec] = [
            HalvingSpec(grace_steps=rung, reduction_factor=self.reduction_factor) for rung in self.rungs[:1]
        ]
        # What median stopping saves is not known beforehand: it leaves room for more trials.
        stopping += [sweep.scheduler] if isinstance(sweep.scheduler, MedianSpec) else []
        changed = {
            "num_trials": self.trials,
            "scheduler": stopping[0] if stopping else None,
            "confirm": sweep.confirm if "confirm" in sweep.model_fields_set else self.confirm,
            "initial": min(sweep.initial, self.trials) if sweep.initial else None,
        }
        return sweep.model_copy(update=changed)

    def amount_in_words(self, amount: float) -> str:
        """Of the budget's unit."""
        if self.prices.unit == "tokens":
            return f"{amount:,.0f} tokens"
        minutes, seconds = divmod(round(amount), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"

    @property
    def lines(self) -> tuple[str, ...]:
        """For people, before anything starts."""
        said, share = self.amount_in_words, 100 / self.amount
        stopped = f"those that lag stop at step {', '.join(map(str, self.rungs))}" if self.rungs else "none stops early"
        beside = f", {self.prices.at_once} at once" if self.prices.at_once > 1 else ""
        rows = [
            f"budget     {self.written}" + ("" if said(self.amount) == self.written else f", {said(self.amount)}"),
            f"trials     {self.trials} of {self.num_steps} steps{beside}, {stopped}: about {said(self.search_cost)} "
            f"({self.search_cost * share:.0f}%), {said(self.prices.full)} each to its end",
        ]
        if self.confirm:
            runs = (self.confirm.top + self.prices.compared) * self.confirm.seeds
            rows.append(
                f"confirmed  {runs} runs ({self.confirm.top} trials and {self.prices.compared} to compare with, "
                f"{self.confirm.seeds} seeds): about {said(self.confirm_cost)} ({self.confirm_cost * share:.0f}%)"
            )
        else:
            rows.append("confirmed  none: no run with a fresh seed fits beside the trials, or the file asks for none")
        if self.pace:
            rows.append(
                f"pace       {self.pace.tokens_per_second:,.0f} tokens/s and {self.pace.start_seconds:.0f}s before the "
                f"first step, from {self.pace.source}"
            )
        return tuple(rows)


def spread(
    written: str,
    amount: float,
    prices: Prices,
    *,
    num_steps: int,
    every: int,
    enough: int = 8,
    reduction_factor: float | None = 2.0,
    confirm: ConfirmSpec | None = None,
    choose_confirm: bool = False,
    pace: Pace | None = None,
) -> BudgetPlan:
    """Spread a budget over trials and runs with fresh seeds.

    Full trials are the most trusted, so that stopping them early begins only where the budget has not enough of them,
    and then as late as gives enough.

    Args:
        written: the budget as the user wrote it.
        amount: in the unit of `prices`.
        prices: of runs.
        num_steps: of a trial that is not stopped.
        every: steps between measurements; a trial can stop at these only.
        enough: trials that the space asks for.
        reduction_factor: one of so many trials survives a rung; None stops no trial.
        confirm: what the file asks for.
        choose_confirm: the file says nothing of it.
        pace: for the plan's words.

    Raises:
        ValueError: not even one trial fits; says what one costs.
    """
    if choose_confirm:
        fitting = [pair for pair in _CONFIRMATIONS if prices.confirmation(*pair) <= amount * _CONFIRMED_SHARE]
        confirm = ConfirmSpec(top=fitting[0][0], seeds=fitting[0][1]) if fitting else None
    kept = prices.confirmation(confirm.top, confirm.seeds) if confirm else 0.0
    factor = reduction_factor or 2.0
    plans = []
    for rungs in _ladders(num_steps, every, factor if reduction_factor else None):
        trials, mean = _affordable(amount - kept, prices, rungs, num_steps, factor)
        plans.append(BudgetPlan(written, amount, prices, trials, num_steps, rungs, factor, mean, confirm, pace))
        if trials >= enough:
            break
    best = max(plans, key=lambda plan: (min(plan.trials, enough), -len(plan.rungs)))
    if best.trials < 1:
        said = best.amount_in_words
        beside = f" and {said(kept)} for confirm" if kept else ""
        raise ValueError(
            f"found {written!r} ({said(amount)}), but one trial of {num_steps} steps takes about {said(prices.full)}"
            f"{beside}; give at least {said(prices.full + kept)}, or make trials shorter (training.steps)"
        )
    return best


def _ladders(num_steps: int, every: int, factor: float | None) -> list[tuple[int, ...]]:
    """No rung, then one, two and so on: the first rung at a measured step, the others at powers of the factor."""
    found: list[tuple[int, ...]] = [()]
    grace = num_steps / factor if factor else 0.0
    while factor and grace >= every:
        first = int(grace // every * every)
        rungs = [first]
        while rungs[-1] * factor < num_steps:
            rungs.append(math.ceil(rungs[-1] * factor))
        found.append(tuple(rungs))
        grace /= factor
    return found


def _affordable(
    amount: float, prices: Prices, rungs: tuple[int, ...], num_steps: int, factor: float
) -> tuple[int, float]:
    """The largest number of trials whose expected cost fits, and their expected mean cost."""
    trials, mean = 0, prices.full
    while trials < 100_000:
        more = _mean_cost(trials + 1, prices, rungs, num_steps, factor)
        # The first trial is never stopped by itself: nothing else has reached its rungs.
        if max(prices.search(trials + 1, more), prices.full) > amount:
            break
        trials, mean = trials + 1, more
    return trials, mean


def _mean_cost(trials: int, prices: Prices, rungs: tuple[int, ...], num_steps: int, factor: float) -> float:
    """Of asynchronous halving, where the first trial at a rung survives and later ones do with probability 1/factor."""
    alive, steps, before = float(trials), 0.0, 0
    for rung in (*rungs, num_steps):
        steps += alive * (rung - before)
        alive, before = 1 + (alive - 1) / factor, rung
    share = steps / (trials * num_steps)
    return prices.start + (prices.full - prices.start) * share
