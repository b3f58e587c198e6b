"""The best trials of a search once more, with fresh seeds, beside mixtures or settings that nobody searched.

    Search, ranked trials -> arms_of -> run_arms (Ray, ordinary runs) -> judge -> Confirmation: winner, gains, verdict

Example:
    >>> from didact.tuning.confirming import ArmResult, judge
    >>> found = ArmResult("s-1", {"adapter.r": 8}, values=(1.0, 1.2), trial="s-1")
    >>> plain = ArmResult("recipe", {}, values=(1.5, 1.7))
    >>> judge((found, plain), "eval/loss", "min").winner
    's-1'
"""

from didact.tuning.confirming.arms import Arm, arm_spec, arms_of, fresh_seeds, run_name
from didact.tuning.confirming.running import confirmed
from didact.tuning.confirming.verdict import Against, ArmResult, Confirmation, confirmation_from, judge

__all__ = [
    "Against",
    "Arm",
    "ArmResult",
    "Confirmation",
    "arm_spec",
    "arms_of",
    "confirmation_from",
    "confirmed",
    "fresh_seeds",
    "judge",
    "run_name",
]
