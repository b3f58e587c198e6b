"""What a cell needs, worked out from counts alone: no data is read, no base downloaded."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter
from transformers import AutoConfig, PreTrainedConfig

from didact.datasets.catalog import card_of
from didact.errors import ModelError, SpecError
from didact.models.base.description import base_description
from didact.models.footprint import Demand, Fit, Load, demand_of, fewest, published_config
from didact.spec import BUNDLED_BASE, AdapterSpec, FinetuneSpec, ForecastSpec, MethodSpec, ModelSpec, SourceSpec

_TERA = 1e12
_HOUR = 3600
_METHODS: TypeAdapter[MethodSpec] = TypeAdapter(AdapterSpec)


@dataclass(frozen=True, slots=True)
class Forecast:
    """A cell as counts tell it."""

    steps: int
    tokens: float
    gib: float | None
    """Memory of one worker with samples of the greatest length; None where no accelerator fits."""
    fit: Fit | None
    """The fewest accelerators that it fits on."""
    hours: float
    """Of one accelerator, training alone."""


def forecast_cell(spec: FinetuneSpec, given: ForecastSpec) -> Forecast:
    """Steps, tokens, memory and time of a recipe.

    Args:
        spec: the cell's recipe.
        given: how long rows are, how fast an accelerator is, rows of sources that nothing else tells.

    Raises:
        DidactError: a source whose rows nothing tells, a base whose sizes nothing tells, a method that does not fit it.
    """
    training = spec.training
    rows = sum(_rows(source, given) - source.held_out_rows for source in spec.data.sources if source.weight)
    steps = training.num_steps(rows)
    tokens = float(steps * training.global_batch_size * given.tokens_per_row)
    base = given.bases.get(spec.model.base, spec.model.base)
    alike = spec.model_copy(update={"model": spec.model.model_copy(update={"base": base})})
    mean = _demand(alike, given.tokens_per_row, given.learned_share)
    longest = _demand(alike, spec.tokens.max_length, given.learned_share)
    fit = fewest(longest, given.memory_gib)
    passes = steps * training.global_batch_size / training.micro_batch_size
    seconds = passes * mean.flops / (given.tflops * _TERA * given.utilisation)
    return Forecast(steps, tokens, fit.footprint.total_gib if fit else None, fit, seconds / _HOUR)


def _rows(source: SourceSpec, given: ForecastSpec) -> int:
    card = card_of(source)
    known = given.rows.get(source.name) or source.max_rows or (card.num_rows if card else None)
    if known is None:
        raise SpecError(f"forecast.rows.{source.name}: nothing tells how many rows {source.path} has; write it here")
    return known


def _demand(spec: FinetuneSpec, tokens_per_row: float, learned_share: float) -> Demand:
    training = spec.training
    load = Load(
        round(training.micro_batch_size * tokens_per_row),
        round(tokens_per_row),
        learned_share,
        recompute=training.gradient_checkpointing,
        packed=spec.packing,
        accumulates=training.global_batch_size > training.micro_batch_size * spec.placement.min_workers,
        on_cpu=False,
        base_dropout=training.base_dropout,
    )
    return _counted(spec.model.model_dump_json(), spec.adapter.model_dump_json(), load)


@cache
def _counted(model: str, adapter: str, load: Load) -> Demand:
    """Asked once for cells of one base and method; takes their specs as JSON, which can be looked up."""
    held = ModelSpec.model_validate_json(model)
    return demand_of(_config(held.base), held, _METHODS.validate_json(adapter), load)


@cache
def _config(base: str) -> PreTrainedConfig:
    known = published_config(base)
    if known is not None:
        return known
    if base == BUNDLED_BASE or (Path(base).expanduser() / "config.json").is_file():
        return AutoConfig.from_pretrained(base_description(ModelSpec(base=base)))
    raise ModelError(f"model.base {base!r} is neither here nor among the published bases whose sizes are known")
