"""A recipe's `data` section and the sources' sizes -> the mixture."""

import math
from collections.abc import Sequence
from dataclasses import replace

from didact.logs import get_logger
from didact.mixtures.curriculum import curriculum_pieces, stages_of
from didact.mixtures.limits import limited_pieces
from didact.mixtures.mixture import Mixture, check_sources, in_samples
from didact.spec import DataSpec

_log = get_logger(__name__)


def build_mixture(
    data: DataSpec, rows: Sequence[int], mean_tokens: Sequence[float], num_samples: int, samples_per_step: int = 1
) -> Mixture:
    """The mixture that `data` asks for.

    Without curriculum and `max_epochs` it does not depend on the length of the run.

    Args:
        data: sources, strategy, limits or curriculum, seed.
        rows: usable training rows of each source.
        mean_tokens: mean tokens per row of each.
        num_samples: samples of the whole run.
        samples_per_step: what `online_mixing` counts in.

    Raises:
        DataError: a source has no rows, or `max_epochs` allows fewer samples than the run asks for.
    """
    names = [source.name for source in data.sources]
    _warn_unused(data)
    check_sources(names, rows, mean_tokens)
    sizes = tuple(names), tuple(rows), tuple(mean_tokens), data.seed
    if data.curriculum:
        return Mixture(*sizes, curriculum_pieces(data, mean_tokens, num_samples), stages_of(data, num_samples))
    weights = source_weights(data, rows, mean_tokens)
    most = [_most(num_rows, limit) for num_rows, limit in zip(rows, _limits(data), strict=True)]
    if any(limit is not None for limit in most):
        by_samples = in_samples(weights, mean_tokens, data.weight_unit)
        # One without weight takes nothing of what others may not.
        most = [limit if weight else 0 for limit, weight in zip(most, weights, strict=True)]
        return Mixture(*sizes, limited_pieces(names, by_samples, most, num_samples))
    mixture = Mixture.build(names, rows, mean_tokens, weights, data.weight_unit, data.seed)
    if data.online_mixing is None:
        return mixture
    for each in data.online_mixing.decided:
        mixture = mixture.then(each.after * samples_per_step, [each.draws.get(name, 0) for name in names])
    return mixture if data.online_mixing.decided else replace(mixture, online=data.online_mixing)


def source_weights(data: DataSpec, rows: Sequence[int], mean_tokens: Sequence[float]) -> list[float]:
    """Relative weights of the sources in `data.weight_unit`, by `data.strategy`.

    Size to the power of 1 / temperature is how multilingual models sample languages (Devlin et al. 2019; Arivazhagan
    et al. 2019, "Massively multilingual neural machine translation in the wild").
    """
    if data.strategy == "explicit":
        return [source.weight for source in data.sources]
    power = {"proportional": 1.0, "temperature": 1 / data.temperature, "uniform": 0.0}[data.strategy]
    sizes = [
        num_rows * mean if data.weight_unit == "tokens" else num_rows
        for num_rows, mean in zip(rows, mean_tokens, strict=True)
    ]
    largest = max(sizes)
    return [max(math.exp(power * math.log(size / largest)), 1e-300) for size in sizes]


def _limits(data: DataSpec) -> list[float | None]:
    return [data.max_epochs if source.max_epochs is None else source.max_epochs for source in data.sources]


def _most(num_rows: int, max_epochs: float | None) -> int | None:
    return None if max_epochs is None else math.floor(num_rows * max_epochs)


def _warn_unused(data: DataSpec) -> None:
    if data.strategy != "explicit" or data.curriculum:
        cause = "data.curriculum" if data.curriculum else f"data.strategy {data.strategy!r}"
        weighed = [source.name for source in data.sources if source.weight != 1]
        if weighed:
            _log.warning("weight of source %s has no effect: %s decides the weights", ", ".join(weighed), cause)
    if data.strategy != "temperature" and data.temperature != DataSpec.model_fields["temperature"].default:
        _log.warning("data.temperature has no effect with data.strategy %r", data.strategy)
    if data.interpolate != "step" and not data.curriculum:
        _log.warning("data.interpolate has no effect without data.curriculum")
