"""Does this adapter reach what its recipe asks? The checks that an evaluation's report answers."""

from collections.abc import Iterator

from didact.display import counted
from didact.evaluation.checks import Check, Outcome
from didact.evaluation.gate import GateResult, judge_gate
from didact.evaluation.report import ADAPTER, BASE, Comparison, EvalReport, TaskFacts, compare_task, unseen
from didact.evaluation.speed import MAX_NEW_TOKENS, SECONDS
from didact.evaluation.statistics import higher_is_better, questions_needed
from didact.spec import GateSpec

CHAMPION = "champion"
_MANY = 10_000_000
_NONE = "no question that training does not hold has a value of both"


def judge_policy(
    report: EvalReport, policy: GateSpec, champion: str | None = None, *, is_champion: bool = False
) -> GateResult:
    """Hold a report against a gate.

    Args:
        report: of base and adapter, and of the champion where there is one.
        policy: what is asked.
        champion: name of the champion that the adapter must be no worse than; None as long as there is none, where
            the base takes its place.
        is_champion: whether the adapter itself is the champion, which is said where the base takes its place.

    Raises:
        SpecError: see `judge_gate`.
    """
    checks = [*judge_gate(report, policy.least).checks]
    checks += [_gain(report, metric, least) for metric, least in policy.gain.items()]
    if policy.no_worse is not None:
        checks += _none_worse(report, policy.no_worse, champion, is_champion)
    checks += [_bound(report, metric, bound) for metric, bound in policy.at_least.items()]
    if policy.contaminated is not None:
        checks += _contaminated(report, policy.contaminated)
    checks += _lengths(report, policy.longest)
    if policy.slower is not None:
        checks.append(_slower(report, policy.slower, champion))
    return GateResult(tuple(checks), () if policy.no_worse is not None else tuple(_fallen(report, policy)))


def _fallen(report: EvalReport, policy: GateSpec) -> Iterator[str]:
    """Tasks that got worse, by chance or not, of which the gate says nothing."""
    asked = {metric.split("/")[1] for metric in policy.metrics}
    for found in report.comparisons(BASE, ADAPTER):
        if found.task not in asked and found.gain.difference < 0:
            yield f"{found.task}: {_words(found)}, {found.outcome}; nothing asks for it (`no_worse` would)"


def _gain(report: EvalReport, metric: str, least: float) -> Check:
    task, _, name = metric.removeprefix("eval/").rpartition("/")
    found = _compared(report, task, name, BASE)
    limit = f"a gain over the base whose interval lies above {least:g}"
    if found is None:
        return Check("gain", metric, _NONE, limit, "not measured")
    return Check("gain", metric, _words(found), limit, _outcome(found.gain.low > least))


def _compared(report: EvalReport, task: str, metric: str, against: str) -> Comparison | None:
    """Questions that training held tell what was learned by heart."""
    return compare_task(task, metric, unseen(report.questions, ADAPTER), against, ADAPTER)


def _contaminated(report: EvalReport, most: float) -> Iterator[Check]:
    limit = f"at most {most:.1%}"
    searched = report.models[ADAPTER].searched if ADAPTER in report.models else None
    if searched is None or searched.problem is not None:
        figure = "training data was not searched" + (f": {searched.problem}" if searched else "")
        yield Check("contaminated", "all tasks", figure, limit, "not measured")
        return
    mine = [each for each in report.contamination if each.model == ADAPTER]
    if not mine:
        yield Check("contaminated", "all tasks", "no task asks questions", limit, "not measured")
    for each in mine:
        figure = f"training holds {each.num_seen:,} of {counted(each.num_questions, 'question')} ({each.share:.1%})"
        yield Check("contaminated", each.task, figure, limit, _outcome(each.share <= most))


def _none_worse(report: EvalReport, margin: float, champion: str | None, is_champion: bool) -> list[Check]:
    if absent := _absent(report, champion):
        return [Check("no_worse", "all tasks", absent, "the champion measured beside the adapter", "not measured")]
    against = BASE if champion is None else CHAMPION
    asked = [task for task in report.tasks if task.version]
    if not asked:
        return [Check("no_worse", "all tasks", "no task asks questions", "a task with questions", "not measured")]
    words = f"{against}, as the champion is this adapter itself" if is_champion else against
    return [_no_worse(report, task, against, margin, words) for task in asked]


def _absent(report: EvalReport, champion: str | None) -> str | None:
    """What to say where the champion of now is not the one that was measured."""
    measured = report.models[CHAMPION].name if CHAMPION in report.models else "none"
    return None if champion in (None, measured) else f"the champion is {champion}, and the evaluation is of {measured}"


def _slower(report: EvalReport, most: float, champion: str | None) -> Check:
    against = BASE if champion is None else CHAMPION
    limit = f"at most {most:g} times the {against}'s"
    absent = _absent(report, champion)
    sides = {name: report.metrics_of.get(name, {}).get(SECONDS) for name in (against, ADAPTER)}
    if absent or not all(sides.values()):
        return Check("slower", "seconds an answer", absent or "not measured", limit, "not measured")
    theirs, mine = (float(each or 0) for each in sides.values())
    count = report.counts.get(SECONDS, 0)
    how = f"median of {counted(count, 'question')} one at a time, at most {MAX_NEW_TOKENS} tokens"
    figure = f"{mine:.3f} s, the {against} {theirs:.3f} s, {mine / theirs:.2f} times ({how})"
    return Check("slower", "seconds an answer", figure, limit, _outcome(mine <= most * theirs))


def _no_worse(report: EvalReport, task: TaskFacts, against: str, margin: float, words: str) -> Check:
    metric = f"eval/{task.name}/{task.metric}"
    found = _compared(report, task.name, task.metric, against)
    limit = f"an interval that does not reach below -{margin:g} against the {words}"
    if found is None:
        return Check("no_worse", metric, _NONE, limit, "not measured")
    if found.gain.low >= -margin:
        return Check("no_worse", metric, _words(found), limit, "passed")
    return Check("no_worse", metric, _words(found) + _too_few(found, margin), limit, "failed")


def _too_few(found: Comparison, margin: float) -> str:
    """How many questions would show two equal models to be within the margin, where these cannot."""
    if found.gain.difference < -margin or margin <= 0:
        return ""
    square = (found.gain.mean_square * found.gain.count + 1) / (found.gain.count + 1)
    needed = questions_needed(
        min(margin, 1.0), square, design_effect=found.gain.count / found.gain.effective, right_or_wrong=False
    ).questions
    return f"; {needed:,} questions would tell" if found.gain.count < needed < _MANY else ""


def _bound(report: EvalReport, metric: str, bound: float) -> Check:
    value = report.metrics(ADAPTER).get(metric) if report.adapter is not None else None
    up = higher_is_better(metric)
    limit = f"{'at least' if up else 'at most'} {bound:g}"
    if value is None or value != value:
        return Check("at_least", metric, "no figure", limit, "not measured")
    found = next((each.points[ADAPTER] for each in report.figures if each.metric == metric), None)
    told = f"{value:.4f}"
    if found is not None and found.low is not None and found.high is not None:
        told += f" [{found.low:.4f} to {found.high:.4f}] on {counted(found.count, 'question')}"
    return Check("at_least", metric, told, limit, _outcome(value >= bound if up else value <= bound))


def _lengths(report: EvalReport, longest: float | None) -> Iterator[Check]:
    if longest is None:
        return
    for task in report.tasks:
        mine = [each.given for each in report.questions if each.task == task.name]
        before, after = (
            sum(given[model].num_tokens for given in mine if model in given and given[model].texts)
            for model in (BASE, ADAPTER)
        )
        if after and not before:
            yield Check("longest", task.name, "the base gave no text", f"at most {longest:g} times", "not measured")
        elif before:
            figure = f"{after / before:.2f} times the tokens of the base's answers"
            yield Check("longest", task.name, figure, f"at most {longest:g} times", _outcome(after <= longest * before))


def _words(found: Comparison) -> str:
    gain = found.gain
    return f"gain {gain.difference:+.4f} [{gain.low:+.4f} to {gain.high:+.4f}] on {counted(gain.count, 'question')}"


def _outcome(holds: bool) -> Outcome:
    return "passed" if holds else "failed"
