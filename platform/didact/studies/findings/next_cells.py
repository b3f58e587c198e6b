"""What to train next: cells that a study does not have, and what its own figures say they would bring."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from didact.evaluation.statistics import corrected
from didact.studies.contrasts import Contrast, Term, contrast
from didact.studies.findings.scaling import Scaling, amount_of, scalings_of
from didact.studies.findings.shares import Share, shares_of, sources_of
from didact.studies.results import CellResult, StudyResult
from didact.studies.values import Scatter, scatter_of

Kind = Literal["together", "more", "less", "without", "seeds"]
_LIMIT = 0.05
_MANY_SEEDS = 20
"""Seeds beyond which a difference is too small to be worth showing."""
_PAIR = (1.0, -1.0)
_BySeed = dict[int, CellResult]


@dataclass(frozen=True, slots=True)
class Proposal:
    """Something worth training."""

    kind: Kind
    """Best levels of several factors `together`; an amount's next doubling (`more`) or halving (`less`); a mixture
    `without` sources; `seeds` that would tell two levels apart."""
    metric: str
    what: str
    """In words."""
    expected: Contrast
    """What it should bring, positive for the better; for `seeds` the difference that is to be told."""
    addition: dict[str, Any]
    """What to add to the study's file; empty where only its author can write it."""

    def __str__(self) -> str:
        metric = self.metric.removeprefix("eval/")
        told = (
            f"{self.what}, {metric}: {self.expected} so far"
            if self.kind == "seeds"
            else f"{self.what}: {metric} should change by {self.expected} for the better"
        )
        return f"{told}; add {json.dumps(self.addition, ensure_ascii=False)}" if self.addition else told


def proposals_of(result: StudyResult) -> list[Proposal]:
    """For each metric, what is most worth its compute first; nothing that the study has measured already.

    Expected is what the study itself has shown, carried on: effects of single levels added up (how levels act together
    is what the new cell would tell), a line's slope for one doubling more, a source's share taken out. Carried on is
    what chance does not explain, with all that was looked at in view (Benjamini and Hochberg, 1995).
    """
    scatters = {metric: scatter_of(result, metric) for metric in result.metrics()}
    gains = {metric: _gains(result, metric, scatter) for metric, scatter in scatters.items()}
    scalings, shares = scalings_of(result), shares_of(result)
    solid = _beyond_chance(
        [gain for of_metric in gains.values() for gain in of_metric.values()]
        + [each.per_doubling for each in scalings]
        + [each.shapley for each in shares if each.shapley is not None]
    )
    found: list[Proposal] = []
    for metric, scatter in scatters.items():
        better = {key: gain for key, gain in gains[metric].items() if gain in solid and gain.value > 0}
        mine = [
            *_together(result, metric, scatter, better),
            *_along(result, [each for each in scalings if each.metric == metric and each.per_doubling in solid]),
            *_without(result, [each for each in shares if each.metric == metric], solid),
        ]
        found += sorted(mine, key=lambda each: -each.expected.value)
        found += _undecided(result, metric, scatter, gains[metric])
    return found


def _beyond_chance(looked_at: Sequence[Contrast]) -> set[Contrast]:
    p_values = corrected({str(at): each.p_value for at, each in enumerate(looked_at)}, "benjamini_hochberg")
    return {each for each, p_value in zip(looked_at, p_values.values(), strict=True) if p_value < _LIMIT}


def _gains(result: StudyResult, metric: str, scatter: Scatter | None) -> dict[tuple[str, str], Contrast]:
    """(factor, level) -> the level against the reference, all other factors at theirs."""
    reference = _reference(result)
    before = _cells(result, reference)
    found = {
        (factor, level): _sum([(1.0, _cells(result, {**reference, factor: level})), (-1.0, before)], metric, scatter)
        for factor, levels in result.spec.factors.items()
        for level in levels
        if level != reference[factor]
    }
    return {key: gain for key, gain in found.items() if gain is not None}


def _together(
    result: StudyResult, metric: str, scatter: Scatter | None, better: dict[tuple[str, str], Contrast]
) -> Iterator[Proposal]:
    """The best level of every factor in which one is better than the reference, in one cell."""
    reference = _reference(result)
    chosen = dict[str, str]()
    for factor, level in sorted(better, key=lambda key: better[key].value):
        chosen[factor] = level
    chosen = {factor: chosen[factor] for factor in reference if factor in chosen}
    if len(chosen) < 2 or _clash(result, chosen) or _cells(result, {**reference, **chosen}):
        return
    sides = [_cells(result, {**reference, factor: level}) for factor, level in chosen.items()]
    terms = [*((1.0, side) for side in sides), (-float(len(sides)), _cells(result, reference))]
    expected = _sum(terms, metric, scatter)
    if expected is not None and expected.low > 0:
        words = ", ".join(f"{factor} {level}" for factor, level in chosen.items())
        yield Proposal("together", metric, f"{words} together", expected, {"cells": [chosen]})


def _clash(result: StudyResult, chosen: dict[str, str]) -> bool:
    """Whether two levels set the same field, so that one would undo the other."""
    paths = [set(result.spec.factors[factor][level]) for factor, level in chosen.items()]
    return any(
        one == two or one.startswith(f"{two}.") or two.startswith(f"{one}.")
        for place, mine in enumerate(paths)
        for others in paths[place + 1 :]
        for one in mine
        for two in others
    )


def _along(result: StudyResult, scalings: list[Scaling]) -> Iterator[Proposal]:
    for each in scalings:
        (least, _), *_, (most, _) = each.points
        grows = each.per_doubling.value > 0
        amount, words = (2 * most, "twice the most") if grows else (least / 2, "half the least")
        yield Proposal(
            "more" if grows else "less",
            each.metric,
            f"{each.factor} {amount:g}, {words}",
            each.per_doubling if grows else _turned(each.per_doubling),
            _new_level(result, each.factor, amount),
        )


def _new_level(result: StudyResult, factor: str, amount: float) -> dict[str, Any]:
    """A level of another amount, where the others set one field to theirs."""
    levels = result.spec.factors[factor]
    set_to_it = {
        path for level, values in levels.items() for path, value in values.items() if value == amount_of(level)
    }
    if len(set_to_it) != 1 or any(len(values) > 1 for values in levels.values()) or amount % 1:
        return {}
    return {"factors": {factor: {f"{amount:g}": {set_to_it.pop(): int(amount)}}}}


def _without(result: StudyResult, shares: list[Share], solid: set[Contrast]) -> Iterator[Proposal]:
    """The whole mixture without the sources that take from it."""
    for factor in dict.fromkeys(each.factor for each in shares):
        mine = [each for each in shares if each.factor == factor]
        taking = [each for each in mine if each.shapley in solid and each.shapley.high < 0]
        kept = {each.source for each in mine} - {each.source for each in taking}
        trained = [set(sources_of(cell)) for cell in result.measured]
        if len(taking) == 1 and kept and kept not in trained and (share := taking[0].shapley) is not None:
            words = f"{factor} with {', '.join(sorted(kept))}, without {taking[0].source}"
            yield Proposal("without", taking[0].metric, words, _turned(share), {})


def _undecided(
    result: StudyResult, metric: str, scatter: Scatter | None, gains: dict[tuple[str, str], Contrast]
) -> Iterator[Proposal]:
    """Levels whose difference from the best one more seeds would show, where the runs' scatter says how many."""
    if scatter is None:
        return
    reference = _reference(result)
    for factor in dict.fromkeys(factor for factor, _ in gains):
        ahead = {level: gain.value for (mine, level), gain in gains.items() if mine == factor}
        best, second = sorted([*ahead, reference[factor]], key=lambda level: -ahead.get(level, 0.0))[:2]
        sides = [
            (1.0, _cells(result, {**reference, factor: best})),
            (-1.0, _cells(result, {**reference, factor: second})),
        ]
        found = _sum(sides, metric, scatter)
        if found is None or found.shown or scatter.reach(_PAIR, found.num_runs) < found.value:
            continue  # told apart already, or it is questions that are too few
        num_seeds = next(
            (n for n in range(found.num_runs + 1, _MANY_SEEDS + 1) if scatter.reach(_PAIR, n) < found.value), None
        )
        if num_seeds is not None:
            num_more, first = num_seeds - found.num_runs, max(result.spec.seeds) + 1
            words = f"{num_more} more {'seed' if num_more == 1 else 'seeds'} to tell {factor} {best} from {second}"
            more = range(first, first + num_more)
            yield Proposal("seeds", metric, words, found, {"seeds": [*result.spec.seeds, *more]})


def _reference(result: StudyResult) -> dict[str, str]:
    return {factor: result.spec.reference(factor) for factor in result.spec.factors}


def _cells(result: StudyResult, levels: dict[str, str]) -> _BySeed:
    return {cell.seed: cell for cell in result.measured if cell.levels == levels}


def _sum(sides: list[tuple[float, _BySeed]], metric: str, scatter: Scatter | None) -> Contrast | None:
    """Over the seeds that all sides have."""
    seeds = sorted(set.intersection(*(set(cells) for _, cells in sides)))
    if not seeds:
        return None
    return contrast([Term(weight, [cells[seed] for seed in seeds]) for weight, cells in sides], metric, scatter)


def _turned(found: Contrast) -> Contrast:
    return Contrast(-found.value, -found.high, -found.low, found.num_runs, found.num_questions, found.p_value)
