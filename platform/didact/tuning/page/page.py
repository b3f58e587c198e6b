"""A sweep's facts as one HTML page that asks for nothing beside it."""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from didact.display import visible
from didact.pages import Scale, Series, parallel, plot, render_page, spent, triangle
from didact.tuning.page.facts import Effect, Setting, SweepFacts, measured
from didact.tuning.records import TrialResult
from didact.tuning.results import SweepResult
from didact.tuning.searchers import Response

_TEMPLATE = Path(__file__).with_name("sweep.html.jinja")
_COLOURS = 7
_QUARTERS = ("best quarter", "second", "third", "last quarter")
_SHOWN_MIXTURES = 8
"""Of the best trials; the others' open on a click."""
_MOST_AXES = 10
"""Settings that parallel coordinates have room for; the strongest are drawn."""


def render_sweep(facts: SweepFacts) -> str:
    """The page; every text of recipes and errors is shown as text, whatever it holds."""
    result = facts.result
    drawn = _Drawings(facts)
    known = sorted(trial.metric for trial in measured(result.trials) if trial.metric is not None)
    ordered = known if result.mode == "min" else known[::-1]
    return render_page(
        _TEMPLATE,
        result=result,
        number=_number,
        visible=visible,
        told=_told,
        colour=lambda place: min(place, _COLOURS),
        quarters=_legend(drawn.quarter_of),
        counts=Counter(trial.status for trial in result.trials),
        steps=sum(trial.steps for trial in result.trials),
        tokens=sum(trial.metrics.get("cost/tokens", 0.0) for trial in result.trials),
        seconds=spent(sum(trial.metrics.get("cost/seconds", 0.0) for trial in result.trials)),
        spread=(ordered[0], statistics.median(ordered), ordered[-1]) if ordered else None,
        coordinates=drawn.coordinates(),
        effects=facts.effects,
        curves=drawn.curves(),
        mixtures=[trial for trial in facts.trials if trial.weights],
        shown_mixtures=_SHOWN_MIXTURES,
        sources=list(dict.fromkeys(name for trial in facts.trials for name in trial.weights)),
        ternary=drawn.ternary(),
        responses=drawn.responses(),
        front=drawn.front(),
        confirmation=result.confirmation,
        confirmed=drawn.confirmed(),
        losses=drawn.losses(),
        chosen=facts.chosen,
        headings=[heading for heading, _ in result.columns()],
        rows=list(zip(*(cells for _, cells in result.columns()), strict=True)),
        failures=[trial for trial in result.trials if trial.error],
        runs=result.trials[0].run.parent if result.trials else "",
    )


class _Drawings:
    """Everything of the page that is drawn; each is None or empty where there is nothing to draw."""

    def __init__(self, facts: SweepFacts) -> None:
        self.facts, self.result = facts, facts.result
        self.known = measured(self.result.trials)
        self.quarter_of = _quarters(self.result, self.known)

    def coordinates(self) -> Markup | None:
        """Parallel coordinates: settings, then the metric; the best trials lie on top."""
        strong = [effect.setting for effect in self.facts.effects if len(_different(effect.setting)) > 1]
        others = [each for each in self.facts.settings if each not in strong and len(_different(each)) > 1]
        kept = (strong + others)[:_MOST_AXES]
        settings = [each for each in self.facts.settings if each in kept]
        if len(self.known) < 2 or not settings:
            return None
        axes = [_scale(each) for each in settings] + [self._metric_scale()]
        lines = []
        for trial in reversed(self.known):
            values = [_value(each, trial) for each in settings] + [trial.metric]
            points = tuple((float(axis), value) for axis, value in enumerate(values) if value is not None)
            lines.append(Series(points, self._title(trial), self._style(trial)))
        return parallel(axes, lines)

    def curves(self) -> Markup | None:
        """The metric over steps, all trials."""
        drawn = [trial for trial in reversed(self.facts.trials) if trial.result.rungs]
        if not drawn:
            return None
        points = [point for trial in drawn for point in trial.result.rungs]
        return plot(
            Scale.over([0.0, *(step for step, _ in points)], "optimizer step"),
            Scale.over([value for _, value in points]),
            [Series(each.result.rungs, self._title(each.result), self._style(each.result)) for each in drawn],
            [Series(each.result.rungs[-1:], self._title(each.result), self._style(each.result)) for each in drawn],
        )

    def ternary(self) -> Markup | None:
        """Mixtures of exactly three sources on a triangle."""
        mixtures = [trial for trial in reversed(self.facts.trials) if trial.weights]
        sources = list(dict.fromkeys(name for trial in mixtures for name in trial.weights))
        if len(sources) != 3:
            return None
        dots = [
            (tuple(each.weights.get(name, 0.0) for name in sources), self._title(each.result), self._style(each.result))
            for each in mixtures
        ]
        return triangle(sources, dots)  # type: ignore[arg-type] # three sources, three shares

    def responses(self) -> list[Markup]:
        """The metric over each setting that has several values."""
        shown = [each for each in self.facts.settings if len(_different(each)) > 1]
        return [self._response(each) for each in shown] if len(self.known) > 1 else []

    def front(self) -> Markup | None:
        """Two goals against each other with the trials that no other one beats joined."""
        goals = self.result.goals
        trials = [each for each in self.known if len(goals) > 1 and all(goal in each.metrics for goal in goals[:2])]
        if not trials:
            return None
        points = {each.name: (each.metrics[goals[0]], each.metrics[goals[1]]) for each in trials}
        best = sorted(points[name] for name in self.result.front if name in points)
        return plot(
            Scale.over([right for right, _ in points.values()], goals[0]),
            Scale.over([up for _, up in points.values()], goals[1]),
            [Series(tuple(best), style="q1")] if len(best) > 1 else [],
            [
                Series((points[each.name],), self._title(each), "best" if each.name in self.result.front else "")
                for each in trials
            ],
        )

    def confirmed(self) -> Markup | None:
        """The metric of each fresh seed, a column for each trial and for each thing it is compared with."""
        found = self.result.confirmation
        arms = [arm for arm in found.arms if arm.measured] if found else []
        if found is None or not arms:
            return None
        dots, lines = [], []
        for place, arm in enumerate(arms):
            style = "best" if arm.name == found.winner else "q1" if arm.trial else "q4"
            for seed, value in zip(found.seeds, arm.measured or (), strict=True):
                dots.append(Series(((float(place), value),), f"{arm.name}, seed {seed}: {_number(value)}", style))
            mean = arm.mean or 0.0
            lines.append(Series(((place - 0.2, mean), (place + 0.2, mean)), f"mean {_number(mean)}", style))
        values = [value for arm in arms for value in arm.measured or ()]
        names = [arm.name.removeprefix(f"{self.result.name}-") for arm in arms]
        return plot(Scale.of_names(names), Scale.over(values, self.result.metric), lines, dots)

    def losses(self) -> list[Markup]:
        """Losses on each source's held-out rows over steps: the best trial beside all others."""
        best = self.result.best.name if self.result.best else None
        ordered = sorted(self.facts.trials, key=lambda trial: trial.result.name == best)
        found = []
        for name in dict.fromkeys(name for trial in self.facts.trials for name in trial.source_losses):
            series = [(trial, trial.source_losses.get(name, ())) for trial in ordered]
            points = [point for _, curve in series for point in curve]
            lines = [
                Series(curve, self._title(trial.result), "best" if trial.result.name == best else "faint")
                for trial, curve in series
            ]
            x = Scale.over([0.0, *(step for step, _ in points)], f"{name}, optimizer step")
            found.append(plot(x, Scale.over([value for _, value in points]), lines))
        return found

    def _response(self, setting: Setting) -> Markup:
        dots = [
            Series(((value, trial.metric),), self._title(trial), self._style(trial))
            for trial in reversed(self.known)
            if trial.metric is not None and (value := _value(setting, trial)) is not None
        ]
        model = self.result.responses.get(setting.path, ())
        known = [trial.metric for trial in self.known if trial.metric is not None]
        upright = Scale.over([*known, *(mean for _, mean, _ in model)], self.result.metric)
        return plot(_scale(setting), upright, _model_lines(model), dots)

    def _metric_scale(self) -> Scale:
        return Scale.over([trial.metric for trial in self.known if trial.metric is not None], self.result.metric)

    def _style(self, trial: TrialResult) -> str:
        quarter = self.quarter_of.get(trial.name)
        is_best = self.result.best is not None and trial.name == self.result.best.name
        return ("best " if is_best else "") + (f"q{quarter}" if quarter else "")

    def _title(self, trial: TrialResult) -> str:
        values = ", ".join(
            f"{each.name} {_cell(each.values[trial.name])}" for each in self.facts.settings if trial.name in each.values
        )
        told = "" if trial.metric is None else f": {_number(trial.metric)}"
        return f"{trial.name}{told} ({values}), {trial.status}"


def _quarters(result: SweepResult, known: Sequence[TrialResult]) -> dict[str, int]:
    """Trial's name -> 1 for the best quarter to 4 for the last, by the metric."""
    sign = 1 if result.mode == "min" else -1
    ordered = sorted(known, key=lambda trial: sign * (trial.metric or 0.0))
    return {trial.name: 1 + 4 * place // len(ordered) for place, trial in enumerate(ordered)}


def _legend(quarter_of: dict[str, int]) -> Markup:
    found = sorted(set(quarter_of.values()))
    return Markup(" ").join(
        Markup('<span><i class="key q{}"></i>{}</span>').format(quarter, _QUARTERS[quarter - 1]) for quarter in found
    )


def _model_lines(model: Response) -> list[Series]:
    """What is expected, and two standard deviations on both sides."""
    if not model:
        return []
    bounds = [Series(tuple((x, mean + side * sd) for x, mean, sd in model), style="bound") for side in (-2, 2)]
    return [*bounds, Series(tuple((x, mean) for x, mean, _ in model), "what the model expects", "model")]


def _scale(setting: Setting) -> Scale:
    if setting.is_number:
        return Scale.over([float(value) for value in setting.values.values()], setting.name, log=setting.is_log)
    return Scale.of_names(setting.categories, setting.name)


def _value(setting: Setting, trial: TrialResult) -> float | None:
    if trial.name not in setting.values:
        return None
    value = setting.values[trial.name]
    return float(value) if setting.is_number else float(setting.categories.index(str(value)))


def _different(setting: Setting) -> set[str]:
    return {str(value) for value in setting.values.values()}


def _told(effect: Effect) -> str:
    chance = "p < 0.01" if effect.p_value < 0.01 else f"p = {effect.p_value:.2f}"
    return f"{effect.kind} over {effect.num_trials} trials, {chance}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
