"""Optuna as the searcher, with a study that is stored beside the trials: `optuna-dashboard sqlite:///.../study.db`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from didact.errors import SpecError
from didact.spec.search.space import Choice, Grid, LogUniform, RandInt, Uniform
from didact.tuning.objective import Objective
from didact.tuning.searchers.draws import Draw, Proposer, Seen
from didact.tuning.spaces import Space, Values
from didact.tuning.spaces.settings import Drawn, levels

if TYPE_CHECKING:
    import optuna

_INDEX, _SPACE, _VIOLATIONS, _VALUES, _POPULATION = "draw", "space", "violations", "values", "population"
_OLD_POPULATION = 20
"""Of studies of earlier versions, which do not say it."""


@dataclass(frozen=True)
class OptunaProposer(Proposer):
    """Asks a stored study, and tells it what trials measured. A study without a file lives as long as this proposer."""

    space: Space
    objective: Objective
    name: str
    sampler: str
    seed: int
    file: Path | None = None
    described: str = ""
    """What the study's trials were drawn from; another description is another study."""
    earlier: tuple[Seen, ...] = ()
    population: int = 20
    """Of NSGA-II: trials of a generation."""

    @override
    def propose(self, index: int, seen: Sequence[Seen]) -> Draw:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = self._study(index)
        self._tell(study, seen)
        known = next((each for each in study.get_trials(deepcopy=False) if each.user_attrs.get(_INDEX) == index), None)
        if known is not None and _VALUES in known.user_attrs:  # asked before the process was killed
            return Draw(index, json.loads(known.user_attrs[_VALUES]), f"optuna {self.sampler}")
        trial = study.ask()
        values = self.space.ask(lambda path, kind: _suggested(trial, path, kind))
        if self.space.mixtures:
            units = [trial.suggest_float(f"share {number}", 0, 1) for number in range(self.space.mixtures.num_units)]
            values |= self.space.mixtures.values(self.space.mixtures.from_units(units))
        trial.set_user_attr(_VALUES, json.dumps(values))
        trial.set_user_attr(_INDEX, index)
        return Draw(index, values, f"optuna {self.sampler}")

    def check(self) -> None:
        """Refuse a stored study of another space before anything starts, and a sampler that cannot draw it.

        Raises:
            SpecError: names the file and what is different.
        """
        if self.sampler == "cmaes" and self.space.num_units < 2:
            raise SpecError("sampler: 'cmaes' needs at least two numbers to draw; use tpe or gp for a single one")
        if self.file is None or not self.file.is_file():
            return
        found = self._study(0).user_attrs.get(_SPACE)
        if found != self.described:
            raise SpecError(
                f"space: the stored study {self.file} is of another space:\n  stored: {found}\n  now:    "
                f"{self.described}\nSet another name, or remove that file"
            )

    @cached_property
    def _storage(self) -> Any:
        """What Optuna keeps the study in; opened once, since it remembers trials that have ended."""
        from optuna.storages import InMemoryStorage, get_storage

        if self.file is None:
            return InMemoryStorage()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        return get_storage(f"sqlite:///{self.file.absolute()}")

    def _study(self, index: int) -> "optuna.Study":
        import optuna

        study = optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            directions=["minimize"] * len(self.objective.goals),
            load_if_exists=True,
        )
        if _SPACE not in study.user_attrs:
            # A search that is given more trials keeps the generations that it began with.
            study.set_user_attr(_POPULATION, self.population)
            study.set_user_attr(_SPACE, self.described)
            study.set_metric_names([f"{goal.name} ({goal.mode})" for goal in self.objective.goals])
            for each in self.earlier:
                if each.losses is not None:
                    study.add_trial(self._known(each))
        study.sampler = self._sampler(index, study)
        return study

    def _tell(self, study: "optuna.Study", seen: Sequence[Seen]) -> None:
        import optuna

        trials = study.get_trials(deepcopy=False)
        by_index = {each.user_attrs[_INDEX]: each for each in trials if _INDEX in each.user_attrs}
        for each in seen:
            asked = by_index.get(each.draw.index)
            if each.status == "running" or (asked is not None and asked.state.is_finished()):
                continue
            if asked is None:
                if each.losses is not None:
                    study.add_trial(self._known(each))
            elif each.status == "failed" or each.losses is None:
                study.tell(asked.number, state=optuna.trial.TrialState.FAIL)
            else:
                optuna.trial.Trial(study, asked._trial_id).set_user_attr(_VIOLATIONS, list(each.violations))
                study.tell(asked.number, list(each.losses))

    def _known(self, seen: Seen) -> "optuna.trial.FrozenTrial":
        """A trial that this study did not ask for."""
        import optuna

        kinds = self.space.drawn
        params = {path: _stored(kinds[path], value) for path, value in seen.draw.values.items() if path in kinds}
        distributions: dict[str, Any] = {path: _distribution(kinds[path]) for path in params}
        if self.space.mixtures:
            units = self.space.mixtures.to_units(self.space.mixtures.point(seen.draw.values))
            params |= {f"share {number}": unit for number, unit in enumerate(units)}
            one = optuna.distributions.FloatDistribution(0, 1)
            distributions |= {f"share {number}": one for number in range(len(units))}
        attributes: dict[str, Any] = {_VALUES: json.dumps(seen.draw.values), _VIOLATIONS: list(seen.violations)}
        if seen not in self.earlier:
            attributes[_INDEX] = seen.draw.index
        return optuna.trial.create_trial(
            params=params, distributions=distributions, values=list(seen.losses or ()), user_attrs=attributes
        )

    def _sampler(self, index: int, study: "optuna.Study") -> "optuna.samplers.BaseSampler":
        """A sampler whose randomness depends on nothing but the seed and the proposal's number."""
        from optuna import samplers

        seed = (self.seed * 1_000_003 + index) % (1 << 31)
        limited: dict[str, Any] = {"constraints_func": _violations} if self.objective.constraints else {}
        match self.sampler:
            case "gp":
                return samplers.GPSampler(seed=seed, **limited)
            case "nsga2":
                size = study.user_attrs.get(_POPULATION, _OLD_POPULATION)
                return samplers.NSGAIISampler(seed=seed, population_size=size, **limited)
            case "cmaes":
                done = [each for each in study.get_trials(deepcopy=False) if each.values]
                source = [each for each in done if _INDEX not in each.user_attrs]
                # Whole numbers need a margin, or their variance may shrink to nothing between two of them
                # (Hamano et al., 2022).
                kinds = self.space.drawn.values()
                whole = any(not isinstance(kind, Uniform | LogUniform) or levels(kind) for kind in kinds)
                return samplers.CmaEsSampler(seed=seed, with_margin=whole, source_trials=source or None)
            case _:
                return samplers.TPESampler(seed=seed, **limited)


def _violations(trial: "optuna.trial.FrozenTrial") -> Sequence[float]:
    return trial.user_attrs.get(_VIOLATIONS, ())


def _suggested(trial: "optuna.Trial", path: str, kind: Drawn) -> Any:
    match kind:
        case Choice(choice=values) | Grid(grid=values) if not all(_plain(value) for value in values):
            return values[trial.suggest_categorical(path, list(range(len(values))))]
        case Choice(choice=values) | Grid(grid=values):
            return trial.suggest_categorical(path, list(values))
        case RandInt(randint=(low, high), factor=None, step=step):
            return trial.suggest_int(path, low, high - (high - low) % step, step=step)
        case Uniform(uniform=(low, high), step=None):
            return trial.suggest_float(path, low, high)
        case LogUniform(loguniform=(low, high), factor=None):
            return trial.suggest_float(path, low, high, log=True)
        case _:
            steps = levels(kind) or ()
            return steps[trial.suggest_int(path, 0, len(steps) - 1)]


def _distribution(kind: Drawn) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match kind:
        case Choice(choice=values) | Grid(grid=values) if not all(_plain(value) for value in values):
            return CategoricalDistribution(list(range(len(values))))
        case Choice(choice=values) | Grid(grid=values):
            return CategoricalDistribution(list(values))
        case RandInt(randint=(low, high), factor=None, step=step):
            return IntDistribution(low, high - (high - low) % step, step=step)
        case Uniform(uniform=(low, high), step=None):
            return FloatDistribution(low, high)
        case LogUniform(loguniform=(low, high), factor=None):
            return FloatDistribution(low, high, log=True)
        case _:
            return IntDistribution(0, len(levels(kind) or ()) - 1)


def _stored(kind: Drawn, value: Any) -> Any:
    """A value as the study holds it: itself, or its number among the setting's levels."""
    values: Values | Any = levels(kind)
    direct = isinstance(kind, RandInt) and kind.factor is None
    plain = isinstance(kind, Choice | Grid) and all(_plain(each) for each in values)
    return value if values is None or direct or plain else list(values).index(value)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
