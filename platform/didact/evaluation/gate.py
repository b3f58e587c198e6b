"""May this adapter become a candidate? Its improvement over the base against the least that was asked for."""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from didact.errors import SpecError
from didact.evaluation.checks import Check, all_passed
from didact.evaluation.report import ADAPTER, EvalReport
from didact.evaluation.statistics import higher_is_better, improvement

_ROUNDING = 1e-9  # 0.6 - 0.5 is a little less than 0.1 in binary


@dataclass(frozen=True, slots=True)
class GateResult:
    """The gate's decision."""

    checks: tuple[Check, ...]
    """All that was asked."""
    fallen: tuple[str, ...] = ()
    """One a task that got lower figures and that nothing was asked of, in words."""

    @property
    def passed(self) -> bool:
        """Whether all of it holds."""
        return all_passed(self.checks)

    @property
    def lines(self) -> tuple[str, ...]:
        """One a check, what was found and what was asked for; then what was not asked for and fell."""
        return (*map(str, self.checks), *self.fallen)


def judge_gate(report: EvalReport, least: Mapping[str, float]) -> GateResult:
    """Compare the adapter with its base on each metric of the gate.

    Args:
        report: of base and adapter.
        least: metric -> least improvement over the base: a rise for accuracies, a fall for losses. Empty passes, unless
            questions were left without a score, as by a judge that was down: then nothing passes.

    Raises:
        SpecError: the report has no such metric, or is of the base alone.
    """
    if least and report.adapter is None:
        raise SpecError("register_as.gate compares an adapter with its base; this report is of the base alone")
    unscored = [*_unscored(report)]
    for metric in least:
        if metric not in report.base and not unscored:
            near = difflib.get_close_matches(metric, report.base, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise SpecError(
                f"register_as.gate: no metric {metric!r} was measured{hint} Known are {', '.join(report.base)}. "
                "Correct it and give the same command: what is trained and evaluated stays"
            )
    return GateResult((*unscored, *(_judge(metric, asked, report) for metric, asked in least.items())))


def _unscored(report: EvalReport) -> Iterator[Check]:
    for task in report.tasks:
        for model, count in task.problems.items():
            if count:
                words = f"{count} of {task.num_questions} questions without a score of {model}"
                yield Check("complete", task.name, words, "none", "failed")


def _judge(metric: str, asked: float, report: EvalReport) -> Check:
    base, adapter = report.base.get(metric, math.nan), report.metrics(ADAPTER).get(metric, math.nan)
    gain = improvement(metric, base, adapter)
    passed = gain >= asked - _ROUNDING  # False for NaN, as it should be
    figure = f"base {base:.4f}, adapter {adapter:.4f}, gain {gain:+.4f}{_by_chance(metric, report)}"
    return Check("least", metric, figure, f"at least {asked:.4f}", "passed" if passed else "failed")


def _by_chance(metric: str, report: EvalReport) -> str:
    """What `least` leaves out, and `gain` asks for."""
    change = next((each.change for each in report.figures if each.metric == metric), None)
    if change is None or change.low is None or change.high is None:
        return ""
    low, high = (change.low, change.high) if higher_is_better(metric) else (-change.high, -change.low)
    return f" [{low:+.4f} to {high:+.4f}]" + ("" if change.shown else ", which chance may explain")
