"""Mixtures within limits: what is drawn, how often, and what is refused."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from didact.errors import SpecError
from didact.spec import DataSpec, FinetuneSpec, SweepSpec, validate
from didact.spec.search.space import Mixture, MixtureSpace
from didact.tuning.spaces import Mixtures, Sizes, Space, resolve_mixtures

NAMES = ("a", "b", "c", "d")
SIZES = Sizes(dict(zip(NAMES, (1000, 100, 10, 500), strict=True)), dict.fromkeys(NAMES, 20.0), 1000)


def recipe_data(**changes: Any) -> DataSpec:
    sources = [{"name": name, "path": f"{name}.jsonl"} for name in NAMES]
    values = {"name": "r", "data": {"sources": sources, **changes}, "training": {"steps": 10}}
    data: DataSpec = validate(FinetuneSpec, values, "r.yaml").data
    return data


def space_of(**mixture: Any) -> MixtureSpace:
    values = {"name": "s", "recipe": "r.yaml", "space": {"data.weights": {"mixture": mixture}}}
    found = validate(SweepSpec, values, "s.yaml").mixture
    assert isinstance(found, Mixture)
    return found.space


def mixtures(sizes: Sizes | None = SIZES, data: DataSpec | None = None, /, **mixture: Any) -> Mixtures:
    return resolve_mixtures(space_of(**mixture), data or recipe_data(), sizes, "s.yaml: space.data.weights.mixture")


def drawn(count: int = 4000, /, **mixture: Any) -> Any:
    return mixtures(**mixture).draw(np.random.default_rng(0), count)


def test_without_limits_draws_are_uniform_over_all_mixtures() -> None:
    shares = drawn()
    assert shares.shape == (4000, 4) and np.allclose(shares.sum(axis=1), 1) and shares.min() > 0
    # One coordinate of Dirichlet(1, 1, 1, 1) is Beta(1, 3).
    assert all(kstest(share, "beta", (1, 3)).pvalue > 1e-3 for share in shares.T)


def test_floors_and_caps_hold_and_draws_stay_uniform_between_them() -> None:
    shares = drawn(floor={"a": 0.2, "b": 0.1}, cap={"c": 0.3})
    assert shares[:, 0].min() >= 0.2 and shares[:, 1].min() >= 0.1 and shares[:, 2].max() <= 0.3
    everywhere = drawn(60_000)
    kept = everywhere[(everywhere[:, 0] >= 0.2) & (everywhere[:, 1] >= 0.1) & (everywhere[:, 2] <= 0.3)]
    # The plain twin: uniform mixtures of which those outside are thrown away.
    assert np.allclose(shares.mean(axis=0), kept.mean(axis=0), atol=0.01)
    assert np.allclose(shares.std(axis=0), kept.std(axis=0), atol=0.01)


def test_where_hardly_any_draw_is_kept_a_walk_is_as_uniform() -> None:
    space = mixtures(cap=0.253)
    shares = space.draw(np.random.default_rng(0), 60)
    assert shares.max() <= 0.253 + 1e-9 and np.allclose(shares.sum(axis=1), 1)
    assert np.allclose(shares.mean(axis=0), 0.25, atol=2e-4), "the middle, by symmetry"
    exact = space.limits.walk(np.random.default_rng(1), 60, lambda _shares: 0.0)
    assert np.allclose(shares.std(axis=0), exact.std(axis=0), rtol=0.4)


def test_a_walk_has_the_density_of_rejection() -> None:
    space = mixtures(floor=0.02, strength=3, prior_shares={"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1})
    exact = space.draw(np.random.default_rng(0), 4000)
    walked = space.limits.walk(np.random.default_rng(1), 150, lambda shares: space._log_density(shares, 3.0))
    assert np.allclose(walked.mean(axis=0), exact.mean(axis=0), atol=0.03)
    assert np.allclose(walked.std(axis=0), exact.std(axis=0), atol=0.03)


def test_groups_divide_the_whole_and_sources_their_group() -> None:
    shares = drawn(groups={"math": {"sources": ["a", "b", "c"], "floor": 0.3, "cap": 0.6}})
    group = shares[:, :3].sum(axis=1)
    assert group.min() >= 0.3 and group.max() <= 0.6
    assert group.mean() == pytest.approx(0.45, abs=0.01), "two parts that are uniform, between floor and cap"
    within = shares[:, 0] / group
    assert kstest(within, "beta", (1, 2)).pvalue > 1e-3


def test_optional_sources_are_left_out_of_half_the_draws() -> None:
    space = mixtures(optional=["b"], floor={"b": 0.2})
    shares = space.draw(np.random.default_rng(0), 400)
    out = shares[:, 1] == 0
    assert 0.4 < out.mean() < 0.6 and shares[~out, 1].min() >= 0.2 and np.allclose(shares.sum(axis=1), 1)
    near = space.near(np.random.default_rng(0), shares[out][0], 50)
    assert (near[:, 1] == 0).all() and near.min() >= 0


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ({"prior": "uniform"}, [0.25, 0.25, 0.25, 0.25]),
        ({"prior": "proportional"}, [1000 / 1610, 100 / 1610, 10 / 1610, 500 / 1610]),
        ({"prior_shares": {"a": 6, "b": 2, "c": 1, "d": 1}}, [0.6, 0.2, 0.1, 0.1]),
    ],
)
def test_draws_lie_around_the_prior(prior: dict[str, Any], expected: list[float]) -> None:
    space = mixtures(**prior, strength=50)
    shares = space.draw(np.random.default_rng(0), 2000)
    assert np.allclose(shares.mean(axis=0), expected, atol=0.01)
    assert shares.std(axis=0).max() < 0.05
    at_prior = space.at_prior()
    assert at_prior is not None and space.distance(at_prior) == pytest.approx(0)
    far = np.array([0.97, 0.01, 0.01, 0.01])
    assert space.distance(far) == pytest.approx(float(np.sum(far * np.log(far / np.array(expected)))))


def test_no_draw_asks_for_more_passes_than_allowed() -> None:
    uneven = Sizes(SIZES.rows, dict(zip(NAMES, (20.0, 10.0, 40.0, 5.0), strict=True)), 1000)
    space = mixtures(uneven, max_epochs=4)
    shares = space.draw(np.random.default_rng(0), 2000)
    samples = shares / np.array([20.0, 10.0, 40.0, 5.0])
    passes = 1000 * samples / samples.sum(axis=1, keepdims=True) / np.array([1000, 100, 10, 500])
    assert 3.5 < passes.max() <= 4 + 1e-6
    by_rows = mixtures(uneven, max_epochs={"c": 4}, unit="rows").draw(np.random.default_rng(0), 500)
    assert 0.03 < by_rows[:, 2].max() <= 0.04 + 1e-9
    recipes_own = mixtures(uneven, recipe_data(max_epochs=4))
    assert np.array_equal(recipes_own.draw(np.random.default_rng(0), 2000), shares)


def test_values_are_what_a_recipe_says() -> None:
    point = np.array([0.4, 0.3, 0.2, 0.1])
    space = mixtures(unit="rows")
    values = space.values(point)
    assert values == {f"data.sources.{name}.weight": share for name, share in zip(NAMES, point, strict=True)} | {
        "data.weight_unit": "rows"
    }
    assert np.array_equal(space.point(values), point)


def test_a_curriculum_is_two_mixtures_and_where_one_becomes_the_other() -> None:
    space = mixtures(curriculum={"until": [0.2, 0.8], "interpolate": "linear"}, floor=0.05)
    point = space.draw(np.random.default_rng(0))[0]
    values = space.values(point)
    data = recipe_data(curriculum=values["data.curriculum"], interpolate=values["data.interpolate"])
    assert [stage.until for stage in data.curriculum] == [pytest.approx(point[-1]), 1.0] and 0.2 < point[-1] < 0.8
    assert min(data.curriculum[0].weights.values()) >= 0.05
    assert np.allclose(space.point(values), point)
    assert len(Space({}, space).coordinates(values)) == sum(Space({}, space).blocks) == 9


@pytest.mark.parametrize(
    "mixture",
    [
        {},
        {"floor": 0.05, "cap": 0.5},
        {"prior": "proportional", "strength": [0.5, 2]},
        {"groups": {"math": {"sources": ["a", "b"], "cap": 0.4}}},
        {"max_epochs": 4},
        {"optional": ["c"]},
        {"curriculum": {"until": [0.3, 0.5]}, "floor": 0.1},
    ],
)
def test_numbers_between_0_and_1_reach_every_mixture(mixture: dict[str, Any]) -> None:
    space = mixtures(**mixture)
    rng = np.random.default_rng(1)
    for point in space.draw(rng, 3):
        assert np.allclose(space.from_units(space.to_units(point)), point, atol=1e-5)
    for units in rng.uniform(size=(4, space.num_units)):
        point = space.from_units(units.tolist())
        for shares in space.shares(point):
            inside = space.restricted([i for i in space.optional if shares[i] == 0])
            assert bool(inside.limits.holds(shares)) and shares.sum() == pytest.approx(1)


def test_uniform_numbers_give_uniform_mixtures() -> None:
    space = mixtures()
    rng = np.random.default_rng(0)
    shares = np.array([space.from_units(units.tolist()) for units in rng.uniform(size=(60, 3))])
    assert all(kstest(share, "beta", (1, 3)).pvalue > 1e-3 for share in shares.T)


def test_the_licence_filter_leaves_sources_out() -> None:
    licences = ("MIT", "CC-BY-4.0", "CC-BY-NC-4.0", None)
    sources = [{"name": name, "path": name, "licence": licence} for name, licence in zip(NAMES, licences, strict=True)]
    assert mixtures(None, recipe_data(sources=sources), licence={"allow": ["mit", "CC-BY-4*"]}).names == ("a", "b")
    sources[0]["commercial"] = sources[3]["commercial"] = True  # type: ignore[assignment]
    assert mixtures(None, recipe_data(sources=sources), licence={"commercial": True}).names == ("a", "d")
    with pytest.raises(SpecError, match=r"mixture\.floor names source 'c', which the licence filter leaves empty.*NC"):
        mixtures(None, recipe_data(sources=sources), licence={"allow": ["MIT", "CC-BY-4.0"]}, floor={"c": 0.1})
    with pytest.raises(SpecError, match=r"mixture\.groups\.g: the licence filter leaves it empty: c: its licence"):
        groups = {"g": {"sources": ["c", "d"]}}
        mixtures(None, recipe_data(sources=sources), licence={"allow": ["MIT", "CC-BY-4.0"]}, groups=groups)
    with pytest.raises(SpecError, match="a mixture needs two sources; found a"):
        mixtures(None, recipe_data(sources=sources), licence={"allow": ["MIT"]})


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"sources": ["a", "b", "c"], "floor": 0.4}, "floors add up to 1.2, above 1"),
        ({"floor": 0.3}, "mixture: floor: floors add up to 1.2, above 1"),
        ({"sources": ["a", "b"], "cap": 0.4}, "caps add up to 0.8, below 1"),
        ({"sources": ["a", "b"], "floor": {"a": 0.5}, "cap": {"a": 0.4}}, "cap of a is 0.4, below its floor 0.5"),
        ({"groups": {"g": {"sources": ["a"], "floor": 0.5, "cap": 0.4}}}, "cap 0.4 is below floor 0.5"),
        ({"groups": {"g": {"sources": ["a", "b"], "cap": 0.3}}, "floor": 0.2}, "groups.g: its floors add up to 0.4"),
        ({"groups": {"g": {"sources": ["a"]}, "h": {"sources": ["a", "b"]}}}, "source 'a' is named twice"),
        ({"floor": {"x": 0.1}}, "mixture.floor: the recipe has no source 'x'"),
        ({"sources": ["a", "b"], "optional": ["c"]}, "sources leaves out 'c', which optional names"),
        ({"curriculum": {"until": [0.2, 0.8]}, "optional": ["a"]}, "remove curriculum or optional"),
        ({"strength": 0}, "strength"),
        ({"floor": "much"}, "found 'much'"),
        ({"cap": -1}, "mixture.cap: expected a number from 0 to 1, or a mapping of sources to such numbers; found -1"),
        ({"max_epochs": 0.1}, "mixture.max_epochs: no mixture keeps max_epochs (a 1,000 rows"),
    ],
)
def test_limits_that_no_mixture_keeps_are_refused_with_file_and_field(mixture: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        mixtures(**mixture)
    assert message in str(caught.value) and str(caught.value).startswith("s.yaml")
