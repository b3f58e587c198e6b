"""What has been spent, and whether another trial may begin."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from didact.files import write_json
from didact.tuning.budget.plan import SLACK, BudgetPlan
from didact.tuning.records import TrialResult


@dataclass(frozen=True, slots=True)
class Ledger:
    """Of one sweep folder. Holds no state of its own: a copy that Tune brings back reads the same file."""

    file: Path
    """Seconds that earlier attempts took, when this one began and when it was last seen alive."""
    plan: BudgetPlan

    def begin(self, now: float | None = None) -> None:
        """An attempt begins, perhaps the first; what an earlier one took until it was last seen counts."""
        now = time.time() if now is None else now
        write_json(self.file, {"earlier": self._known(), "begun": now, "latest": now})

    def alive(self, now: float | None = None) -> None:
        """Remember that this attempt is alive. Called by the driver's main thread only."""
        kept = json.loads(self.file.read_text(encoding="utf-8"))
        latest = time.time() if now is None else now
        if latest - kept["latest"] >= 1:
            write_json(self.file, {**kept, "latest": latest})

    def elapsed(self, now: float | None = None) -> float:
        """Seconds of all attempts."""
        kept = json.loads(self.file.read_text(encoding="utf-8"))
        latest = max(kept["latest"], time.time() if now is None else now)
        return float(kept["earlier"] + latest - kept["begun"])

    def _known(self) -> float:
        if not self.file.is_file():
            return 0.0
        kept = json.loads(self.file.read_text(encoding="utf-8"))
        return float(kept["earlier"] + kept["latest"] - kept["begun"])

    def may_begin(self, trials: Sequence[TrialResult], now: float | None = None) -> bool:
        """Whether one more trial brings the search nearer to its budget, and above it by no more than `SLACK`; the
        first one always may.

        Args:
            trials: all that were begun.
            now: in seconds since 1970; left out: now.
        """
        plan = self.plan
        if not trials:
            return True
        mean, full = self._expected(trials, now)
        if plan.prices.unit == "tokens":
            spent = [each.metrics.get("cost/tokens", 0.0) for each in trials]
            done = sum(spent) + plan.confirm_cost
            live = [own for own, each in zip(spent, trials, strict=True) if not each.ended and not each.error]
            after = done + sum(max(0.0, mean - own) for own in live) + mean
            most = done + sum(max(0.0, full - own) for own in live) + full
        else:
            done = self.elapsed(now) + plan.confirm_cost
            after, most = done + mean, done + full
        return after - plan.amount <= mean / 2 and most <= (1 + SLACK) * plan.amount

    def _expected(self, trials: Sequence[TrialResult], now: float | None) -> tuple[float, float]:
        """What a trial costs in the mean and to its end, by those that have ended; before that as planned."""
        plan = self.plan
        ended = [each for each in trials if each.ended]
        if not ended:
            return plan.mean, plan.prices.full
        ratio = plan.prices.full / plan.mean
        if plan.prices.unit == "tokens":
            mean = sum(each.metrics.get("cost/tokens", 0.0) for each in ended) / len(ended)
            whole = [each.metrics.get("cost/tokens", 0.0) for each in ended if each.steps >= plan.num_steps]
            return mean, max(whole, default=mean * ratio)
        live = sum(1 for each in trials if not each.ended and not each.error)
        # Trials that run are half way in the mean.
        mean = self.elapsed(now) * min(plan.prices.at_once, len(trials)) / (len(ended) + live / 2)
        return mean, mean * ratio

    def words(self, trials: Sequence[TrialResult], again: float | None = None) -> str:
        """What was spent, for people.

        Args:
            trials: of the search.
            again: tokens of the runs with fresh seeds.
        """
        plan = self.plan
        if plan.prices.unit == "tokens":
            used = sum(each.metrics.get("cost/tokens", 0.0) for each in trials) + (again or 0.0)
        else:
            used = self.elapsed()
        share = 100 * used / plan.amount
        return f"budget {plan.written}: {plan.amount_in_words(used)} used ({share:.0f}%), {len(trials)} trials"
