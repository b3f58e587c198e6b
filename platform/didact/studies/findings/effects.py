"""What each factor changes: its levels against the reference, over all pairs of cells that differ in nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from didact.evaluation.statistics import corrected
from didact.studies.additive import additive_terms, is_additive
from didact.studies.contrasts import contrast
from didact.studies.figures import Gain, gain_of
from didact.studies.results import StudyResult
from didact.studies.tables import counterparts
from didact.studies.values import Scatter, scatter_of

_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class Effect:
    """A level of a factor against the factor's reference level."""

    factor: str
    level: str
    reference: str
    metric: str
    gain: Gain
    """Positive where the level is better than the reference."""
    corrected_p: float
    """P-value that may be held against one limit over all effects of the study (Holm)."""
    over: str
    """What it was told by, in words: pairs of runs that differ in nothing else, or runs of a fractional design."""

    @property
    def is_found(self) -> bool:
        """Whether chance does not explain it, with all effects of the study in view."""
        return self.corrected_p < _LIMIT

    def __str__(self) -> str:
        found = self.gain
        verdict = ("better" if found.value > 0 else "worse") if self.is_found else "no difference shown"
        if found.shown and not self.is_found:  # its own interval leaves zero out
            verdict += f", with all effects in view (p {self.corrected_p:.2g})"
        return (
            f"{self.factor} {self.level} against {self.reference}, {self.metric.removeprefix('eval/')}: "
            f"{found.value:+.4g} [{found.low:+.4g} to {found.high:+.4g}] over "
            f"{self.over}{' of runs' if found.num_pairs else ''}: {verdict}"
        )


def _effect(result: StudyResult, factor: str, level: str, metric: str, scatter: Scatter | None) -> Iterator[Effect]:
    reference = result.spec.reference(factor)
    if is_additive(result):
        terms = additive_terms(result, factor, {level: 1.0, reference: -1.0})
        told = contrast(terms, metric, scatter) if terms else None
        if terms and told is not None:
            gain = Gain(told.value, told.low, told.high, told.p_value, 0, told.num_questions)
            over = f"{sum(len(each.cells) for each in terms)} runs"
            yield Effect(factor, level, reference, metric, gain, gain.p_value, over)
        return
    cells, _ = counterparts(result, factor, (reference, level), {})
    gain_or_none = gain_of(cells[reference], cells[level], metric, scatter=scatter) if all(cells.values()) else None
    if gain_or_none is not None:
        pairs = gain_or_none.num_pairs
        over = f"{pairs} {'pair' if pairs == 1 else 'pairs'}"
        yield Effect(factor, level, reference, metric, gain_or_none, gain_or_none.p_value, over)


def effects_of(result: StudyResult) -> list[Effect]:
    """All effects that can be told, in the order of the file; those of a factor with one measured level are not."""
    scatters = {metric: scatter_of(result, metric) for metric in result.metrics()}
    found: list[Effect] = []
    for factor, levels in result.spec.factors.items():
        reference = result.spec.reference(factor)
        for level in levels:
            if level == reference:
                continue
            for metric, scatter in scatters.items():
                found += _effect(result, factor, level, metric, scatter)
    p_values = corrected({str(place): each.gain.p_value for place, each in enumerate(found)})
    return [replace(each, corrected_p=p_values[str(place)]) for place, each in enumerate(found)]
