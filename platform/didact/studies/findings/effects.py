"""What each factor changes: its levels against the reference, over all pairs of cells that differ in nothing else."""

from dataclasses import dataclass, replace

from didact.evaluation.statistics import corrected
from didact.studies.figures import Gain, gain_of
from didact.studies.results import StudyResult
from didact.studies.tables import counterparts
from didact.studies.values import scatter_of

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

    @property
    def is_found(self) -> bool:
        """Whether chance does not explain it, with all effects of the study in view."""
        return self.corrected_p < _LIMIT

    def __str__(self) -> str:
        found = self.gain
        verdict = ("better" if found.value > 0 else "worse") if self.is_found else "no difference shown"
        return (
            f"{self.factor} {self.level} against {self.reference}, {self.metric.removeprefix('eval/')}: "
            f"{found.value:+.4g} [{found.low:+.4g} to {found.high:+.4g}] over {found.num_pairs} "
            f"{'pair' if found.num_pairs == 1 else 'pairs'} of runs: {verdict}"
        )


def effects_of(result: StudyResult) -> list[Effect]:
    """All effects that can be told, in the order of the file; those of a factor with one measured level are not."""
    scatters = {metric: scatter_of(result, metric) for metric in result.metrics()}
    found = []
    for factor, levels in result.spec.factors.items():
        reference = result.spec.reference(factor)
        for level in levels:
            if level == reference:
                continue
            cells, _ = counterparts(result, factor, (reference, level), {})
            if not cells[reference] or not cells[level]:
                continue
            for metric in result.metrics():
                gain = gain_of(cells[reference], cells[level], metric, scatter=scatters[metric])
                if gain is not None:
                    found.append(Effect(factor, level, reference, metric, gain, gain.p_value))
    p_values = corrected({str(place): each.gain.p_value for place, each in enumerate(found)})
    return [replace(each, corrected_p=p_values[str(place)]) for place, each in enumerate(found)]
