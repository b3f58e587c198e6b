import math
from typing import Any

import optuna
import pytest
from ray import tune
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.sample import Categorical, Float, Integer

from didact.errors import SpecError
from didact.spec import SweepSpec, validate
from didact.spec.sweep import Distribution
from didact.tuning.space import draws_after, extreme_values, optuna_space, param_space, trial_values

SPACE = {
    "adapter.r": {"choice": [4, 8]},
    "adapter.dropout": {"uniform": [0.0, 0.2]},
    "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
    "training.micro_batch_size": {"randint": [1, 3]},
    "data.weights": {"simplex": ["sums", "letters.v2", "words"]},
}


def read(space: dict[str, Any]) -> dict[str, Distribution]:
    return validate(SweepSpec, {"name": "s", "recipe": "r.yaml", "space": space}, "s.yaml").space


def samples_of_tune(space: dict[str, Any], count: int) -> list[dict[str, Any]]:
    domains = param_space(read(space))
    return [{path: domain.sample() for path, domain in domains.items()} for _ in range(count)]


def samples_of_optuna(space: dict[str, Any], count: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask(optuna_space(read(space))).params for _ in range(count)]


def test_ray_gets_the_domain_that_was_written() -> None:
    domains = param_space(read(SPACE))
    assert isinstance(domains["adapter.r"], Categorical)
    assert isinstance(domains["training.learning_rate"], Float)
    assert isinstance(domains["training.micro_batch_size"], Integer)
    assert param_space(read({"adapter.r": {"grid": [1, 2]}})) == {"adapter.r": {"grid_search": [1, 2]}}


@pytest.mark.parametrize("sample", [samples_of_tune, samples_of_optuna])
def test_both_searchers_draw_the_same_names_within_bounds(sample: Any) -> None:
    drawn = sample(SPACE, 200)
    names = {*(path for path in SPACE if path != "data.weights")}
    names |= {f"data.weights.{name}" for name in ("sums", "letters.v2", "words")}
    assert all(set(values) == names for values in drawn)
    assert {values["adapter.r"] for values in drawn} == {4, 8}
    assert {values["training.micro_batch_size"] for values in drawn} == {1, 2, 3}, "both bounds are included"
    rates = [values["training.learning_rate"] for values in drawn]
    assert 1e-4 <= min(rates) < max(rates) <= 1e-2
    below = sum(rate < 1e-3 for rate in rates) / len(rates)
    assert 0.35 < below < 0.65, "uniform in the logarithm"


@pytest.mark.parametrize("sample", [samples_of_tune, samples_of_optuna])
def test_simplex_weights_are_uniform_over_mixtures(sample: Any) -> None:
    space = {"data.weights": SPACE["data.weights"]}
    weights = [trial_values(read(space), values) for values in sample(space, 3000)]
    assert all(math.isclose(sum(mix.values()), 1) and min(mix.values()) > 0 for mix in weights)
    first = [mix["data.sources.sums.weight"] for mix in weights]
    # One coordinate of Dirichlet(1, 1, 1) is Beta(1, 2): mean 1/3, variance 1/18, P(x < 0.5) = 3/4.
    mean = sum(first) / len(first)
    assert mean == pytest.approx(1 / 3, abs=0.02)
    assert sum((x - mean) ** 2 for x in first) / len(first) == pytest.approx(1 / 18, abs=0.006)
    assert sum(x < 0.5 for x in first) / len(first) == pytest.approx(0.75, abs=0.03)


def test_other_values_keep_their_paths() -> None:
    space = read({"adapter.r": {"choice": [4, 8]}, "training.learning_rate": {"uniform": [1e-4, 1e-3]}})
    sample = {"adapter.r": 4, "training.learning_rate": 5e-4}
    assert trial_values(space, sample) == sample


def test_extremes_stand_for_the_whole_distribution() -> None:
    found = [extreme_values(distribution) for distribution in read(SPACE).values()]
    assert found == [(4, 8), (0.0, 0.2), (1e-4, 1e-2), (1, 3), ()]


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ({"uniform": [2, 1]}, "bounds must be lower, then higher"),
        ({"randint": [3, 3]}, "bounds must be lower, then higher"),
        ({"chioce": [1]}, "expected a mapping with one of the keys choice, uniform"),
        ([4, 8], "expected a mapping with one of the keys choice, uniform"),
    ],
)
def test_impossible_distribution_is_explained_in_one_line(distribution: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        read({"adapter.r": distribution})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("space", [SPACE, {"adapter.r": {"grid": [1, 2]}, "adapter.dropout": {"uniform": [0, 0.2]}}])
@pytest.mark.parametrize("earlier", [0, 1, 3])
def test_more_trials_draw_on_where_the_search_was(space: dict[str, Any], earlier: int) -> None:
    tune.register_trainable("nothing", lambda config: None)

    def drawn(count: int, draws: Any) -> list[dict[str, Any]]:
        searcher = BasicVariantGenerator(random_state=draws)
        searcher.add_configurations({"s": {"run": "nothing", "num_samples": count, "config": param_space(read(space))}})
        return [trial.config for trial in iter(searcher.next_trial, None)]

    whole = drawn(5, 7)
    begun, rest = drawn(earlier, 7) if earlier else [], drawn(5 - earlier, draws_after(read(space), 7, earlier))
    assert begun + rest == whole and len(whole) == 5 * (2 if "adapter.r" in space and len(space) == 2 else 1)
