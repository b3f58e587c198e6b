"""How a search spends what it may spend: trials, rungs, runs with fresh seeds.

    budget + pace of a run -> plan_budget -> BudgetPlan, shown before the start -> Ledger: may another trial begin?

Example:
    >>> from didact.tuning.budget import Prices, spread
    >>> plan = spread("1e6 tokens", 1e6, Prices("tokens", full=50_000.0, confirmed=50_000.0), num_steps=30, every=10)
    >>> plan.trials, plan.rungs
    (20, ())
"""

from didact.tuning.budget.ledger import Ledger
from didact.tuning.budget.pace import Pace, pace_of_earlier_runs
from didact.tuning.budget.plan import BudgetPlan, Prices, spread
from didact.tuning.budget.planning import keep_plan, kept_plan, plan_budget

__all__ = [
    "BudgetPlan",
    "Ledger",
    "Pace",
    "Prices",
    "keep_plan",
    "kept_plan",
    "pace_of_earlier_runs",
    "plan_budget",
    "spread",
]
