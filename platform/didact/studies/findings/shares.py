"""What each dataset of a mixture brings: left out of all, its share over all subsets, in tasks it was not made for."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from didact.studies.additive import is_additive
from didact.studies.contrasts import Contrast, Term, contrast
from didact.studies.results import CellResult, StudyResult
from didact.studies.tables import counterparts
from didact.studies.values import scatter_of

Subset = frozenset[str]


@dataclass(frozen=True, slots=True)
class Share:
    """One source of the whole mixture, and one metric."""

    factor: str
    source: str
    metric: str
    left_out: Contrast | None
    """By how much the whole is better than the whole without it; None where that was not trained."""
    shapley: Contrast | None
    """Its part of what the whole gained over the base; None where the subsets that were trained do not tell.

    The parts of all sources add up to the gain.
    """

    def __str__(self) -> str:
        told = [f"brings {self.left_out} to the rest" if self.left_out else ""]
        told.append(f"its share of the gain is {self.shapley}" if self.shapley else "")
        return f"{self.source}, {self.metric.removeprefix('eval/')}: {'; '.join(filter(None, told))}"


@dataclass(frozen=True, slots=True)
class Transfer:
    """What training on each level's data changed in each task."""

    factor: str
    levels: tuple[str, ...]
    metrics: tuple[str, ...]
    changes: tuple[tuple[Contrast | None, ...], ...]
    """By level and metric, against the base; positive is better."""
    own: tuple[tuple[bool, ...], ...]
    """Whether the level's data is of the task itself."""


def shares_of(result: StudyResult) -> list[Share]:
    """Of every factor whose levels are mixtures, with one that holds all sources of the others."""
    found = []
    for factor in result.spec.factors:
        cells = _by_subset(result, factor)
        whole: Subset = frozenset().union(*cells) if cells else frozenset()
        if len(whole) < 2 or whole not in cells:
            continue
        parts = _shapley_weights(sorted(whole), list(cells))
        for source in sorted(whole):
            rest = cells.get(whole - {source})
            for metric in result.metrics():
                scatter = scatter_of(result, metric)
                without = contrast([Term(1, cells[whole]), Term(-1, rest)], metric, scatter) if rest else None
                share = contrast(_terms(parts[source], cells, whole), metric, scatter) if parts else None
                if without is not None or share is not None:
                    found.append(Share(factor, source, metric, without, share))
    return found


def transfers_of(result: StudyResult) -> list[Transfer]:
    """Of every factor whose levels differ in their data and that were measured by two tasks or more."""
    found = []
    metrics = tuple(each for each in result.metrics() if each.count("/") > 1)
    for factor, levels in result.spec.factors.items():
        cells, _ = counterparts(result, factor, tuple(levels), {})
        known = {level: each for level, each in cells.items() if each}
        if len(metrics) < 2 or len({frozenset(sources_of(each[0])) for each in known.values()}) < 2:
            continue
        scatters = {metric: scatter_of(result, metric, "change") for metric in metrics}
        changes = tuple(
            tuple(contrast([Term(1, each, "change")], metric, scatters[metric]) for metric in metrics)
            for each in known.values()
        )
        own = tuple(tuple(_is_of(each[0], metric) for metric in metrics) for each in known.values())
        found.append(Transfer(factor, tuple(known), metrics, changes, own))
    return found


def sources_of(cell: CellResult) -> dict[str, str]:
    """Name -> path of what a cell was trained on; empty where its recipe is not there or cannot be read."""
    file = cell.run / "recipe.json"
    if not file.is_file():
        return {}
    try:
        sources = json.loads(file.read_text(encoding="utf-8"))["data"]["sources"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {each["name"]: each["path"] for each in sources if each.get("weight", 1)}


def _is_of(cell: CellResult, metric: str) -> bool:
    task = metric.split("/")[1]
    return any(path.rpartition(":")[2] == task for path in sources_of(cell).values())


def _by_subset(result: StudyResult, factor: str) -> dict[Subset, list[CellResult]]:
    """Set of source names -> measured cells; empty unless each level has a set of its own, and runs to compare with."""
    if is_additive(result):
        return {}
    cells, _ = counterparts(result, factor, tuple(result.spec.factors[factor]), {})
    known = {level: each for level, each in cells.items() if each}
    found = {frozenset(sources_of(each[0])): each for each in known.values()}
    return found if len(found) == len(known) and frozenset() not in found else {}


def _shapley_weights(sources: Sequence[str], subsets: Sequence[Subset]) -> dict[str, dict[Subset, float]] | None:
    """Source -> subset (the empty one included) -> its weight in the source's share.

    Least squares with the Shapley kernel (Lundberg and Lee, 2017): with all subsets it gives the Shapley values, with
    fewer their best linear estimate. None where the subsets do not decide it.
    """
    count, whole, empty = len(sources), frozenset(sources), frozenset[str]()
    inner = [each for each in subsets if each not in (whole, empty)]
    if not inner:
        return None
    members = np.array([[float(source in each) for source in sources] for each in inner])
    kernel = np.array([(count - 1) / (math.comb(count, len(s)) * len(s) * (count - len(s))) for s in inner])
    # The last share is what the others leave of the gain, so that all of them add up to it.
    free = members[:, :-1] - members[:, -1:]
    scaled = np.sqrt(kernel)[:, None]
    if np.linalg.matrix_rank(free) < count - 1:
        return None
    solve = np.linalg.pinv(scaled * free) * scaled[:, 0]
    # Values minus the empty one's, minus the last source's part of the gain.
    columns = [*inner, whole, empty]
    values = np.zeros((len(inner), len(columns)))
    values[:, : len(inner)] = np.eye(len(inner))
    values[:, -2] = -members[:, -1]
    values[:, -1] = members[:, -1] - 1
    first = solve @ values
    last = -first.sum(axis=0)
    last[-2] += 1
    last[-1] -= 1
    rows = np.vstack([first, last])
    return {
        source: {subset: float(weight) for subset, weight in zip(columns, row, strict=True)}
        for source, row in zip(sources, rows, strict=True)
    }


def _terms(weights: dict[Subset, float], cells: dict[Subset, list[CellResult]], whole: Subset) -> list[Term]:
    """The empty set is the base, as it was before the whole was trained."""
    return [
        Term(weight, cells[subset]) if subset else Term(weight, cells[whole], "base")
        for subset, weight in weights.items()
    ]
