"""The searcher for few trials, on made-up surfaces of known optimum."""

import math
from typing import Any

import numpy as np
import pytest

from didact.tuning.searchers import RandomProposer, Seen
from tests.fakes.mixture_search import BEST, found, proposer_of, regret, search, tried


def cross_entropy(shares: np.ndarray, _values: Any = None) -> dict[str, float]:
    return {"eval/loss": float(-(BEST * np.log(shares)).sum())}


def test_24_trials_find_the_known_optimum_where_random_ones_do_not() -> None:
    sweep, space, objective = search()
    seen, mixtures = tried(sweep, space, objective, cross_entropy, 0.01)
    assert regret(np.full(4, 0.25)) == pytest.approx(0.353, abs=0.001)
    assert seen[0].draw.origin == "uniform" and seen[-1].draw.origin == "expected improvement"
    assert regret(mixtures[found(seen)]) <= 0.06
    by_chance, random = tried(sweep, space, objective, cross_entropy, 0.01, proposer=RandomProposer(space, 0))
    assert regret(mixtures[found(seen)]) < regret(random[found(by_chance)])
    findings = proposer_of(sweep, space, objective).findings(seen)
    assert findings is not None and findings.signal and findings.words.startswith("left-out trials are ranked")
    assert regret(space.mixtures.point(findings.values)) <= 0.06  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_model_tells_the_goal_along_each_share_and_setting(mode: str) -> None:
    space = {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}, "adapter.r": {"choice": [4, 8]}}
    sweep, drawn, objective = search(3, 20, space=space, mode=mode)
    sign = 1 if mode == "min" else -1

    def measure(shares: np.ndarray, values: dict[str, Any]) -> dict[str, float]:
        away = math.log10(values["training.learning_rate"] / 1e-3) ** 2
        return {"eval/loss": sign * (2 + away + float(((shares - [0.6, 0.3, 0.1]) ** 2).sum()))}

    seen, _ = tried(sweep, drawn, objective, measure, 0.001)
    found = proposer_of(sweep, drawn, objective).responses(seen)
    assert set(found) == {"training.learning_rate", *(f"data.sources.s{number}.weight" for number in range(3))}
    for path, line in found.items():
        known = [each.draw.values[path] for each in seen]
        at, mean, sd = (np.array(each) for each in zip(*line, strict=True))
        assert (np.diff(at) > 0).all() and (at[0], at[-1]) == (pytest.approx(min(known)), pytest.approx(max(known)))
        assert (sd > 0).all() and abs(mean[(sign * mean).argmin()] - sign * 2) < 0.1
        best = {"training.learning_rate": 1e-3, "data.sources.s0.weight": 0.6}.get(path)
        assert best is None or abs(math.log(at[(sign * mean).argmin()] / best)) < 0.6
    assert proposer_of(sweep, drawn, objective).responses(seen[:2]) == {}


@pytest.mark.nightly
def test_9_of_10_seeds_find_it_through_noise() -> None:
    regrets, random = [], []
    for seed in range(10):
        sweep, space, objective = search(seed=seed)
        seen, mixtures = tried(sweep, space, objective, cross_entropy, 0.03, seed)
        regrets.append(regret(mixtures[found(seen)]))
        seen, mixtures = tried(sweep, space, objective, cross_entropy, 0.03, seed, RandomProposer(space, seed))
        random.append(regret(mixtures[found(seen)]))
    assert sum(each <= 0.06 for each in regrets) >= 9, regrets
    assert np.median(regrets) < np.median(random)


def test_a_harmful_source_ends_at_its_floor_and_one_that_transfers_above_it() -> None:
    sweep, space, objective = search()

    def measure(shares: np.ndarray, _values: Any) -> dict[str, float]:
        # Two tested sources; the third helps the first one's test, and the fourth has shuffled answers.
        first, second, helps, shuffled = shares
        return {"eval/loss": float(-0.5 * np.log(first + 0.8 * helps) - 0.5 * np.log(second + 0.9 * helps) + shuffled)}

    seen, mixtures = tried(sweep, space, objective, measure, 0.005)
    best = mixtures[found(seen)]
    assert best[3] <= 0.05 and best[2] > 0.3


def test_sources_of_equal_worth_give_no_signal() -> None:
    sweep, space, objective = search(4, 16)
    seen, _ = tried(sweep, space, objective, lambda _shares, _values: {"eval/loss": 2.0}, 0.01)
    findings = proposer_of(sweep, space, objective).findings(seen)
    assert findings is not None and not findings.signal and findings.words.startswith("no signal: ")


def test_what_is_proposed_depends_on_nothing_but_what_was_seen() -> None:
    sweep, space, objective = search(4, 14)
    seen, _ = tried(sweep, space, objective, cross_entropy, 0.01)
    again = proposer_of(sweep, space, objective)  # as after a kill
    assert [again.propose(index, seen[:index]) for index in (3, 9, 13)] == [seen[index].draw for index in (3, 9, 13)]


def test_trials_that_still_run_are_not_proposed_again() -> None:
    sweep, space, objective = search(4, 14)
    seen, _ = tried(sweep, space, objective, cross_entropy, 0.01)
    proposer = proposer_of(sweep, space, objective)
    alone = proposer.propose(15, seen)
    beside = proposer.propose(15, [*seen, Seen(alone, "running")])
    assert alone.values == proposer.propose(15, seen).values != beside.values


def test_many_sources_have_a_convex_law_for_each_metric() -> None:
    """With 10 sources and two metrics that want different ones, 32 trials come near the best sum."""
    rates = np.random.default_rng(5).uniform(0, 3, size=(2, 10))
    sweep, space, objective = search(
        10, 32, goals=[{"sum": {"eval/a/loss": 1, "eval/b/loss": 1}}], mixture={"floor": 0.0, "kl_to_prior": 0}
    )

    def measure(shares: np.ndarray, _values: Any) -> dict[str, float]:
        first, second = 1 + np.exp(0.5 - rates @ shares)
        return {"eval/a/loss": float(first), "eval/b/loss": float(second)}

    seen, mixtures = tried(sweep, space, objective, measure, 0.002)
    assert seen[-1].draw.origin.startswith("log-linear law")

    def total(shares: np.ndarray) -> float:
        return sum(measure(shares, None).values())

    pure = np.linspace(0, 1, 51)[:, None, None] * np.eye(10)[None, :, :]
    pairs = [pure[i][a] + pure[50 - i][b] for i in range(51) for a in range(10) for b in range(a)]
    least = min(map(total, pairs))  # two exponentials are least on an edge of the simplex
    uniform = total(np.full(10, 1 / 10))
    assert total(mixtures[found(seen)]) - least < 0.1 * (uniform - least)
    findings = proposer_of(sweep, space, objective).findings(seen)
    assert findings is not None and findings.signal


def test_what_the_law_cannot_say_of_many_sources_is_left_to_the_other_model() -> None:
    """Two of 10 sources are worth something together only, which no sum over sources tells."""
    sweep, space, objective = search(10, 40, mixture={"floor": 0.0, "kl_to_prior": 0})

    def measure(shares: np.ndarray, _values: Any) -> dict[str, float]:
        return {"eval/loss": float(2 - 2 * np.sqrt(shares[2] * shares[7]))}

    seen, mixtures = tried(sweep, space, objective, measure, 0.002, proposer=RandomProposer(space, 0))
    draw = proposer_of(sweep, space, objective).propose(40, seen)
    assert draw.origin == "expected improvement" and space.mixtures is not None
    better = measure(space.mixtures.point(draw.values), None)["eval/loss"]
    assert better < min(measure(shares, None)["eval/loss"] for shares in mixtures)


def test_settings_and_mixtures_are_one_question() -> None:
    sweep, space, objective = search(
        4,
        30,
        space={"training.learning_rate": {"loguniform": [1e-5, 1e-2]}, "adapter.method": {"choice": ["lora", "ia3"]}},
    )

    def measure(shares: np.ndarray, values: dict[str, Any]) -> dict[str, float]:
        off = (math.log10(values["training.learning_rate"]) + 3) ** 2
        return {"eval/loss": cross_entropy(shares)["eval/loss"] + 0.3 * off + 0.4 * (values["adapter.method"] == "ia3")}

    seen, mixtures = tried(sweep, space, objective, measure, 0.005)
    best = found(seen)
    assert regret(mixtures[best]) < 0.12 and seen[best].draw.values["adapter.method"] == "lora"
    assert 2e-4 < seen[best].draw.values["training.learning_rate"] < 5e-3


def test_constraints_are_kept() -> None:
    constraint = {"metric": "eval/english/loss", "at_most": 1.2}
    sweep, space, objective = search(4, 20, constraints=[constraint])

    def measure(shares: np.ndarray, _values: Any) -> dict[str, float]:
        return {**cross_entropy(shares), "eval/english/loss": float(-np.log(shares[3]))}  # needs 0.30 of the last

    seen, mixtures = tried(sweep, space, objective, measure, 0.0)
    allowed = [each for each in range(20) if max(seen[each].violations) <= 0]
    best = min(allowed, key=lambda each: (seen[each].losses or (math.inf,))[0])
    assert mixtures[best][3] < 0.36, "near the edge that the constraint leaves, and not inside it"
    assert best >= 8, "found by the model"


def test_several_goals_spread_over_their_front() -> None:
    goals = [{"metric": "eval/a/loss"}, {"metric": "eval/b/loss"}]
    sweep, space, objective = search(4, 20, goals=goals)

    def measure(shares: np.ndarray, _values: Any) -> dict[str, float]:
        return {"eval/a/loss": float(-np.log(shares[0])), "eval/b/loss": float(-np.log(shares[1]))}

    seen, mixtures = tried(sweep, space, objective, measure, 0.0)
    front = objective.front([each.losses for each in seen])
    parts = mixtures[list(front)][:, 0] / mixtures[list(front)][:, :2].sum(axis=1)
    assert len(front) >= 5 and parts.min() < 0.35 and parts.max() > 0.65
    assert mixtures[list(front)][:, 2:].sum(axis=1).mean() < 0.3
