"""Models of single sources as parts of a blend: made-up answers whose best mixture is known, and real adapters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from didact.cluster.worker import held_out_losses
from didact.errors import SpecError
from didact.models import attach_adapter, base_fingerprint, load_base, save_adapter
from didact.preparation import prepare_data
from didact.spec import SweepSpec, validate
from didact.training import World
from didact.tuning.proxies import Answers, answers_of, best_blend, blend_losses, check_proxy
from didact.tuning.proxies.mixmin import of_samples
from didact.tuning.proxies.running import _solved
from didact.tuning.searchers import ranking_of
from didact.tuning.spaces.polytope import Polytope, Vector
from tests.fakes.recipes import tiny_recipe
from tests.tuning.test_proxies import RECIPE, SWEEP, search


def simplex(count: int, low: float = 0.0, high: float = 1.0) -> Polytope:
    return Polytope(np.full(count, low), np.full(count, high), np.zeros((0, count)), np.zeros(0))


def answers_by(models: Vector, blend: Vector, count: int = 2000) -> Answers:
    """Answers of one token each, as often as the blend of the models [sources, tokens] gives them."""
    often = np.round(count * blend @ models).astype(int)
    return Answers(np.repeat(np.log(models).T, often, axis=0), np.ones(often.sum()))


def by_expectation(answers: Answers, rounds: int = 20_000) -> Vector:
    """The plain twin: expectation and maximization for the shares of a mixture, which climbs to the one top."""
    chances = np.exp(answers.logs)
    shares: Vector = np.full(chances.shape[1], 1 / chances.shape[1])
    for _ in range(rounds):
        parts = shares * chances
        shares = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


@pytest.mark.parametrize("blend", [(0.6, 0.25, 0.1, 0.05), (0.25, 0.25, 0.25, 0.25), (0.9, 0.1, 0.0, 0.0)])
def test_a_planted_blend_is_found(blend: tuple[float, ...]) -> None:
    # Source k says token k to nine tenths, and each other one alike.
    models = np.full((4, 4), 0.1 / 3) + np.eye(4) * (0.9 - 0.1 / 3)
    answers = answers_by(models, np.array(blend))
    found = best_blend({"a": answers}, {"eval/loss": 1.0}, simplex(4), np.full(4, 0.25))
    assert np.abs(found - blend).sum() < 0.05 and found.sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_that_of_expectation_and_maximization(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = Answers(rng.normal(-2, 1.5, size=(60, 4)), rng.integers(1, 9, size=60))
    found = best_blend({"a": answers}, {"eval/a/loss": 1.0}, simplex(4), np.full(4, 0.25))
    wanted = by_expectation(answers)
    assert np.abs(found - wanted).sum() < 0.02
    assert answers.loss(found) <= answers.loss(wanted) + 1e-7


def test_limits_and_the_weights_of_a_goal_hold() -> None:
    models = np.full((3, 3), 0.05) + np.eye(3) * 0.85
    sets = {name: answers_by(models, row) for name, row in zip("abc", np.eye(3), strict=True)}
    start = np.full(3, 1 / 3)
    only = best_blend(sets, {"eval/b/loss": 1.0}, simplex(3, low=0.1), start)
    assert only == pytest.approx([0.1, 0.8, 0.1], abs=1e-4)
    capped = best_blend(sets, {"eval/b/loss": 1.0}, simplex(3, high=0.5), start)
    assert capped[1] == pytest.approx(0.5, abs=1e-4)
    both = best_blend(sets, {"eval/a/loss": 1.0, "eval/c/loss": 1.0}, simplex(3), start)
    assert both == pytest.approx([0.5, 0.0, 0.5], abs=1e-3)
    room = Polytope(np.zeros(3), np.ones(3), np.array([[1.0, 0.0, 1.0]]), np.array([0.4]))
    grouped = best_blend(sets, {"eval/a/loss": 1.0, "eval/c/loss": 1.0}, room, np.array([0.1, 0.8, 0.1]))
    assert grouped == pytest.approx([0.2, 0.6, 0.2], abs=1e-3)


def test_shares_of_tokens_are_turned_into_shares_of_samples() -> None:
    assert of_samples(np.array([0.5, 0.5]), [10.0, 30.0]).tolist() == [0.75, 0.25]
    assert of_samples(np.array([0.2, 0.8]), None).tolist() == [0.2, 0.8]
    models = np.array([[0.9, 0.1], [0.1, 0.9]])
    answers = {"a": answers_by(models, np.array([0.75, 0.25]))}
    found = best_blend(answers, {"eval/loss": 1.0}, simplex(2), np.array([0.9, 0.1]), [10.0, 30.0])
    assert found == pytest.approx([0.5, 0.5], abs=1e-3)


def test_losses_are_those_that_runs_report() -> None:
    certain = Answers(np.log([[0.5, 0.25], [1.0, 0.5]]), np.array([1, 3]))
    other = Answers(np.log([[0.125, 0.125]]), np.array([2]))
    losses = blend_losses({"a": certain, "b": other}, np.array([1.0, 0.0]))
    assert losses["eval/a/loss"] == pytest.approx(np.log(2) / 4)
    assert losses["eval/b/loss"] == pytest.approx(np.log(8) / 2)
    assert losses["eval/loss"] == pytest.approx((np.log(2) + np.log(8)) / 6)


def test_an_answer_that_no_model_gives_does_not_break_the_sum() -> None:
    losses = blend_losses({"a": Answers(np.array([[-2000.0, -3000.0]]), np.array([10]))}, np.array([0.0, 1.0]))
    assert losses["eval/loss"] == pytest.approx(203, abs=1)


def test_real_adapters_say_what_each_of_them_would_lose(tmp_path: Path) -> None:
    tiny_recipe(tmp_path)
    path = str(tmp_path / "sums.jsonl")
    sources = [{"name": name, "path": path, "max_rows": 20, "held_out_rows": 4} for name in ("first", "second")]
    spec = tiny_recipe(tmp_path, data__sources=sources)
    prepared, folders, wanted = prepare_data(spec), [], []
    for number in range(2):
        model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="tiny")
        torch.manual_seed(number)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.3 * torch.randn(parameter.shape)
        folders.append(tmp_path / f"{number}")
        folders[-1].mkdir()
        save_adapter(
            model, folders[-1], base=spec.model.base, base_fingerprint=base_fingerprint(spec.model), method="lora"
        )
        wanted.append(held_out_losses(model, prepared, World(), packing=True))
    answers = answers_of(spec, folders, torch.device("cpu"))
    assert answers["first"].logs.shape == (4, 2)
    for alone, losses in zip(np.eye(2), wanted, strict=True):
        assert blend_losses(answers, alone) == pytest.approx(losses, rel=1e-4)
    between = blend_losses(answers, np.array([0.5, 0.5]))
    assert between["eval/loss"] <= max(each["eval/loss"] for each in wanted)


def test_what_it_ranks_best_is_the_solved_mixture_and_worse_ones_come_after(tmp_path: Path) -> None:
    found = search(tmp_path, proxy={"method": "mixmin"}, metric="eval/loss")
    mixtures = found.space.mixtures
    assert mixtures is not None
    models = np.array([[0.8, 0.2], [0.3, 0.7]])
    answers = {"a": answers_by(models, np.array([0.7, 0.3]))}
    points = list(mixtures.draw(np.random.default_rng(0), 30))
    best = _solved(found, answers, points, None)
    assert best == pytest.approx([0.7, 0.3], abs=0.01)
    scored = [(mixtures.values(point), answers["a"].loss(point)) for point in [*points, best]]
    first, ranking = ranking_of((), scored, calibrate=4, top=3, at_least=0.7)
    assert first[0] == mixtures.values(best)
    measured = dict(enumerate(ranking.expected))
    assert ranking.is_believed(measured)
    assert not ranking.is_believed({number: -value for number, value in measured.items()})


@pytest.mark.parametrize(
    ("recipe", "changes", "said"),
    [
        ({**RECIPE, "adapter": {"method": "full"}}, {}, "found adapter.method 'full'"),
        ({**RECIPE, "adapter": {"init": "pissa"}}, {}, "found adapter.init 'pissa'"),
        (RECIPE, {"space": {"adapter.r": {"choice": [2, 4]}}}, "it ranks mixtures of fixed sources"),
        (RECIPE, {"metric": "train/loss"}, "it knows held-out losses; found 'train/loss'"),
    ],
)
def test_what_cannot_be_blended_is_refused(
    tmp_path: Path, recipe: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    proxy = {"proxy": {"method": "mixmin"}}
    with pytest.raises(SpecError, match=said):
        check_proxy(search(tmp_path, recipe, **proxy, **changes))
    check_proxy(search(tmp_path, {**RECIPE, "adapter": {"method": "ia3"}}, **proxy))


def test_models_of_one_source_have_no_general_part() -> None:
    found = validate(SweepSpec, {**SWEEP, "proxy": {"method": "mixmin"}}, "s.yaml")
    assert found.proxy is not None and found.proxy.general_share == 0
    merge = validate(SweepSpec, SWEEP, "s.yaml")
    assert merge.proxy is not None and merge.proxy.general_share == 0.5
    with pytest.raises(SpecError, match=r"general is 0.3, and models of method 'mixmin' are of one source each"):
        validate(SweepSpec, {**SWEEP, "proxy": {"method": "mixmin", "general": 0.3}}, "s.yaml")
