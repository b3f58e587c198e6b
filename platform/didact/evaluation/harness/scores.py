"""lm-eval's metrics over our answers: of one question, of a task, of a group of tasks."""

import inspect
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api import metrics as lm_metrics

from didact.evaluation.questions import Score
from didact.evaluation.scorers.own_code import own_code
from didact.evaluation.statistics.direction import HIGHER, LOWER, higher_is_better
from didact.logs import get_logger

_log = get_logger(__name__)
_DRAWS = 1000
"""Resamples behind a bootstrapped standard error."""
_UNREAD = "[invalid]"
"""What lm-eval's extraction gives where it found nothing."""
_LIKELIHOOD = "log_likelihood"
_ERROR = "_stderr"
_CLOSED = {lm_metrics.mean: lm_metrics.mean_stderr, lm_metrics.acc_all: lm_metrics.acc_all_stderr}
_SCORING_ERRORS = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)

Key = tuple[str, str]
"""Metric and filter, as lm-eval names figures: `acc,none`."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One lm-eval task."""

    name: str
    task: Any

    @property
    def settings(self) -> dict[str, Any]:
        """Its YAML fields, functions as their names with the digests of their files, and its version."""
        # Where its rows lie is no part of what it asks; the rows themselves are in its requests.
        elsewhere = {"metadata", "dataset_path", "dataset_kwargs"}
        fields = {key: _named(value) for key, value in self.task.dump_config().items() if key not in elsewhere}
        config = getattr(self.task, "config", None)
        values = list(vars(config).values()) if config is not None else []
        code = [own_code(each) for each in (type(self.task), *_functions(values))]
        return {**fields, "version": str(self.task.VERSION), "code": {k: v for each in code for k, v in each.items()}}

    @property
    def main_metric(self) -> str:
        """The one that says how good an answer is."""
        means = [metric for metric, of in self.task.aggregation().items() if of is lm_metrics.mean]
        if not means and self.task.OUTPUT_TYPE == "loglikelihood_rolling":
            return _LIKELIHOOD
        return self._label(next(iter(means or self.task.aggregation())), self._filters()[0])

    def text(self, document: Any) -> str:
        """What a document asks, without examples around it."""
        text = self.task.doc_to_text(document)
        options = self.options(document)
        if isinstance(text, int) and text < len(options):
            return options[text]
        return text if isinstance(text, str) else ""

    def expected(self, document: Any) -> str:
        """The right answer."""
        target = self.task.doc_to_target(document)
        options = self.options(document)
        if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(options):
            return options[target]
        return "; ".join(map(str, target)) if isinstance(target, list) else str(target)

    def options(self, document: Any) -> tuple[str, ...]:
        """Of a multiple choice."""
        config = getattr(self.task, "config", None)
        has_options = config is not None and getattr(config, "doc_to_choice", None) is not None
        return tuple(map(str, self.task.doc_to_choice(document))) if has_options else ()

    def score(self, instances: Sequence[Any], given: Sequence[list[Any]], options: Sequence[str]) -> Score:
        """What one document's responses are worth.

        Args:
            instances: its requests.
            given: responses to each.
            options: of a multiple choice.
        """
        found: dict[Key, Any] = {}
        values: dict[str, float] = {}
        extracted: str | None = None
        for name, results in self._filtered(instances, given).items():
            try:
                metrics = self.task.process_results(instances[0].doc, results)
            except _SCORING_ERRORS as error:
                return Score(problem=f"lm-eval could not score it: {type(error).__name__}: {error}")
            found |= {(metric, name): value for metric, value in metrics.items()}
            values |= {
                self._label(metric, name): float(value)
                for metric, value in metrics.items()
                if self._aggregation(metric) is lm_metrics.mean
            }
            extracted = _extracted(results, options)
            if name != "none" and instances[0].request_type == "generate_until":
                values[self._label("unread", name)] = float(extracted is None)
        if self.task.OUTPUT_TYPE == "loglikelihood_rolling":
            values[_LIKELIHOOD] = float(given[0][0])
        return Score(values, extracted, data=found)

    def shown(self, figures: Mapping[str, Any], *, with_means: bool) -> dict[str, float]:
        """Figures of `leaf_figures` under the names that reports have: `<metric>_stderr` beside `<metric>`.

        Args:
            figures: as `leaf_figures` gives them.
            with_means: also those that are means over questions.
        """
        shown = {}
        for key, value in figures.items():
            metric, comma, name = key.partition(",")
            own = with_means or metric.endswith(_ERROR) or self._aggregation(metric) is not lm_metrics.mean
            if comma and own and isinstance(value, int | float) and math.isfinite(value):
                shown[self._label(metric, name)] = float(value)
        return shown

    def _filters(self) -> list[str]:
        return [each.name for each in getattr(self.task, "_filters", ())] or ["none"]

    def _label(self, metric: str, filter_name: str) -> str:
        """A figure's name in reports."""
        filters = self._filters()
        stem = metric.removesuffix(_ERROR)
        label = stem if len(filters) == 1 else f"{stem}_{filter_name}"
        if metric.endswith(_ERROR):
            return label + _ERROR
        return with_direction(label, self.lower_is_better(metric))

    def lower_is_better(self, metric: str) -> bool | None:
        """Whether less of a metric is better, as its YAML or lm-eval's own table says; None where neither does."""
        up = self.task.higher_is_better().get(metric)
        return None if up is None else not up

    def _filtered(self, instances: Sequence[Any], given: Sequence[list[Any]]) -> dict[str, list[Any]]:
        """Filter -> what it makes of the responses, one a request."""
        ensembles = getattr(self.task, "_filters", ())
        if not ensembles:
            return {"none": [responses[0] for responses in given]}
        filtered = {}
        for ensemble in ensembles:
            left: Any = list(given)
            for each in ensemble.filters:
                left = list(each().apply(left, [instance.doc for instance in instances]))
            filtered[ensemble.name] = left
        return filtered

    def _aggregation(self, metric: str) -> Callable[[Any], Any]:
        # lm-eval takes the mean where a task says nothing.
        return self.task.aggregation().get(metric, lm_metrics.mean)


def leaf_figures(leaf: Leaf, scores: Sequence[Score]) -> dict[str, Any]:
    """A task's figures as lm-eval names them: `acc,none`, `acc_stderr,none`, `sample_len`."""
    raw: dict[Key, list[Any]] = {}
    for score in scores:
        for key, value in score.data.items():
            raw.setdefault(key, []).append(value)
    figures: dict[str, Any] = {"name": leaf.name, "alias": leaf.name, "sample_len": len(scores)}
    for (metric, name), items in raw.items():
        aggregate = leaf._aggregation(metric)
        try:
            figures[f"{metric},{name}"] = aggregate(items)
        except _SCORING_ERRORS as error:  # answers are there, and the other figures stand
            _log.warning(f"{leaf.name}: lm-eval gives no {metric}: {error}")
            continue
        spread = _standard_error(aggregate, items) if len(items) > 1 else None
        figures[f"{metric}_stderr,{name}"] = "N/A" if spread is None else spread
    return figures


def group_figures(
    groups: Mapping[str, Any], figures_of: Mapping[str, Mapping[str, Any]], leaves: Mapping[str, Leaf]
) -> dict[str, float]:
    """Figures of lm-eval's own groups: `<group>/<metric>`."""
    figures = {}
    for name, group in groups.items():
        for key, value in group.aggregate(dict(figures_of)).items():
            metric, comma, filter_name = key.partition(",")
            if comma and isinstance(value, int | float):
                label = metric if filter_name == "none" else f"{metric}_{filter_name}"
                said = [lower for leaf in leaves.values() if (lower := leaf.lower_is_better(metric)) is not None]
                figures[f"{name}/{with_direction(label, said[0] if said else None)}"] = float(value)
    return figures


def _standard_error(aggregate: Callable[[Any], Any], items: list[Any]) -> float | None:
    """As lm-eval gives it; None for metrics that it gives none for."""
    if aggregate in _CLOSED:
        return float(_CLOSED[aggregate](items))
    if lm_metrics.stderr_for_metric(aggregate, 1) is None:
        return None
    # lm-eval draws the same in a pool of processes, which a program with threads must not fork.
    draw = random.Random(0)
    return statistics.stdev(float(aggregate(draw.choices(items, k=len(items)))) for _ in range(_DRAWS))


def with_direction(label: str, lower: bool | None) -> str:
    """A name from which its direction is told: where the name alone would say otherwise, it gets an ending."""
    if lower is None or higher_is_better(label) != lower:
        return label
    return label + (LOWER if lower else HIGHER)


def _extracted(results: Sequence[Any], options: Sequence[str]) -> str | None:
    first = results[0]
    if isinstance(first, str):
        return None if first == _UNREAD else first
    if options and len(results) >= len(options) and all(isinstance(each, tuple) for each in results):
        likely = [each[0] for each in results[: len(options)]]
        return options[likely.index(max(likely))]
    return None


def _functions(value: Any) -> list[Any]:
    """Every function of a setting."""
    if isinstance(value, Mapping):
        return [each for inner in value.values() for each in _functions(inner)]
    if isinstance(value, list | tuple):
        return [each for inner in value for each in _functions(inner)]
    return [value] if inspect.isfunction(value) else []


def _named(value: Any) -> Any:
    """Plain data of a setting; a function is its name, without its address in memory."""
    if isinstance(value, Mapping):
        return {str(key): _named(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_named(each) for each in value]
    return getattr(value, "__qualname__", None) or (value if isinstance(value, str | int | float) else str(value))
