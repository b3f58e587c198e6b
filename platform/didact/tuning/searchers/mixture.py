"""Few trials, each at the draw from which a model of the goal expects the most.

The model is a Gaussian process over square roots of shares and over settings, one for each metric that is in the goal;
the next draw has the largest expected improvement (Jones et al. 1998), and trials that still run count as measured at
the best value so far (constant liar, Ginsbourger et al. 2010). Above 8 sources another one competes with it: a law for
each metric that is linear in the logarithm, whose sum is convex and is solved for the best mixture (Olmix, arXiv
2602.12237); every second draw of it is of a law fitted to a bootstrap sample, so that the search does not stand still.
Whichever ranks trials better that it was not shown makes the proposal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm, spearmanr
from typing_extensions import override

from didact.spec.search.space import LogUniform, Uniform
from didact.tuning.objective import Objective
from didact.tuning.searchers.draws import Draw, Proposer, Seen
from didact.tuning.searchers.ranking import Ranking
from didact.tuning.searchers.surrogates import GaussianProcess, LogLinear, Surrogate
from didact.tuning.spaces import Space, Values, weighed_source, weight_path
from didact.tuning.spaces.polytope import Vector
from didact.tuning.spaces.settings import levels

MANY_SOURCES = 8
"""With more of them the log-linear law is tried as well."""
_FOLDS = 8
SIGNAL = 0.6
"""Rank correlation of left-out trials from which on the model is believed."""
_RANKED = "ranked best by the proxy"
_POOL, _NEAR, _BEST = 512, 160, 3
_ALONG = 25
"""Points of a line through the space."""

Response = tuple[tuple[float, float, float], ...]
"""Values of a share or setting, ascending, each with the goal that a model expects there and its standard deviation."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a model learned from the trials."""

    rho: float
    """Rank correlation of measured goals with what the model says of each trial without having seen it."""
    values: Values
    """The draw that the model calls the best."""
    expected: float
    """Its goal there, less being better."""
    trials: int
    """How many it learned from."""

    @property
    def signal(self) -> bool:
        """Whether the model tells better draws from worse ones."""
        return self.rho >= SIGNAL

    @property
    def words(self) -> str:
        """For people."""
        known = f"left-out trials are ranked with a correlation of {self.rho:.2f} over {self.trials} trials"
        if self.signal:
            return known
        return f"no signal: {known}, below {SIGNAL}; differences between the draws are not told from chance"


@dataclass(frozen=True)
class MixtureProposer(Proposer):
    """See the module."""

    space: Space
    objective: Objective
    seed: int
    initial: int
    starts: tuple[tuple[str, Values], ...] = ()
    """Named mixtures, uniform and proportional, that are tried first."""
    kl_to_prior: float = 0.05
    earlier: tuple[Seen, ...] = ()
    """Trials of earlier sweeps of the same space."""
    ranking: Ranking | None = None
    """What a proxy says of mixtures."""

    @override
    def propose(self, index: int, seen: Sequence[Seen]) -> Draw:
        rng = np.random.default_rng([self.seed, index])
        drawn = self.space.draw(rng)
        known = _measured((*self.earlier, *seen))
        if index < len(self.starts):
            name, values = self.starts[index]
            return Draw(index, {**drawn, **values}, name)
        taken = sum(each.draw.origin == _RANKED for each in seen)
        if self.ranking and taken < len(self.ranking.best) and self.ranking.is_believed(self._by_number(seen)):
            return Draw(index, {**drawn, **self.ranking.best[taken]}, _RANKED)
        if index < self.initial or len(known) < 3:
            return Draw(index, drawn, "random")
        if self._follows_law(known):
            return self._solved(index, rng, known)
        return self._improving(index, rng, known, [each for each in seen if each.status == "running"])

    def findings(self, seen: Sequence[Seen]) -> Findings | None:
        """What the trials so far say; None before three were measured."""
        known = _measured((*self.earlier, *seen))
        if len(known) < 3:
            return None
        rng = np.random.default_rng([self.seed, 1 << 20])
        goal = np.array([self._loss(each) for each in known])
        model = self._model(known, self._first_goal(known), is_law=self._follows_law(known))
        left_out = np.sum([each.left_out() for each in model.parts], axis=0)
        rho = _correlation(left_out, goal)
        if model.is_law:
            values, expected = self._best_of_law(model, self._pool(rng, known))
        else:
            pool = self._pool(rng, known)
            mean, _ = self._expected(model, pool)
            best = int(np.argmin(mean))
            values, expected = pool[best], float(mean[best])
        return Findings(rho, values, expected, len(known))

    def responses(self, seen: Sequence[Seen]) -> dict[str, Response]:
        """What the model says of the first goal along each share and each continuous setting; empty before `findings`.

        The others are as in the draw that the model calls the best, other shares in its proportions. Each path goes
        from the least to the largest value that was tried, since the model knows nothing beyond.
        """
        found = self.findings(seen)
        if found is None:
            return {}
        known = _measured((*self.earlier, *seen))
        model = self._model(known, self._first_goal(known), is_law=self._follows_law(known))
        sign = 1.0 if self.objective.goals[0].mode == "min" else -1.0
        drawn = {}
        for path in self._continuous():
            tried = [float(each.draw.values[path]) for each in known if path in each.draw.values]
            if len(set(tried)) < 2 or path not in found.values:
                continue
            space = np.geomspace if isinstance(self.space.drawn.get(path), LogUniform) else np.linspace
            line = [float(value) for value in space(min(tried), max(tried), _ALONG)]
            points = self._coordinates([self._moved(found.values, path, x) for x in line], is_law=model.is_law)
            predicted = [each.predict(points) for each in model.parts]
            mean = sign * np.sum([each for each, _ in predicted], axis=0)
            sd = np.sqrt(np.sum([each**2 for _, each in predicted], axis=0))
            drawn[path] = tuple((x, float(at), float(wide)) for x, at, wide in zip(line, mean, sd, strict=True))
        return drawn

    def _continuous(self) -> list[str]:
        mixtures = self.space.mixtures
        shares = [weight_path(name) for name in mixtures.names] if mixtures and mixtures.until is None else []
        plain = (path for path, kind in self.space.drawn.items() if isinstance(kind, Uniform | LogUniform))
        return [*shares, *(path for path in plain if levels(self.space.drawn[path]) is None)]

    def _moved(self, values: Values, path: str, to: float) -> Values:
        """The draw with another value; of a share, with what is left for the others in their proportions."""
        mixtures, source = self.space.mixtures, weighed_source(path)
        if mixtures is None or source not in mixtures.names:
            return {**values, path: to}
        point = mixtures.point(values)
        chosen = np.array([name == source for name in mixtures.names])
        others = np.where(chosen, 0.0, np.maximum(point, 1e-9))
        return {**values, **mixtures.values(np.where(chosen, to, (1 - to) * others / others.sum()))}

    def proxy_words(self, seen: Sequence[Seen]) -> str | None:
        """What became of the proxy; None without one."""
        return self.ranking.words(self._by_number(seen)) if self.ranking else None

    def _by_number(self, seen: Sequence[Seen]) -> dict[int, float]:
        """Measured goals by the trial's number."""
        return {each.draw.index: self._loss(each) for each in _measured(seen)}

    def _follows_law(self, known: Sequence[Seen]) -> bool:
        """Whether, of many sources, the law ranks trials that it was not shown at least as well as the other model."""
        mixtures = self.space.mixtures
        if mixtures is None or len(mixtures.names) <= MANY_SOURCES:
            return False
        goal, targets = np.array([self._loss(each) for each in known]), self._first_goal(known)
        parts, told = np.arange(len(known)) % _FOLDS, {True: np.zeros(len(known)), False: np.zeros(len(known))}
        for is_law, part in product(told, range(min(_FOLDS, len(known)))):
            shown = [each for each, own in zip(known, parts, strict=True) if own != part]
            model = self._model(shown, [target[parts != part] for target in targets], is_law=is_law)
            left = self._points([each for each, own in zip(known, parts, strict=True) if own == part], is_law=is_law)
            told[is_law][parts == part] = np.sum([each.predict(left)[0] for each in model.parts], axis=0)
        return _correlation(told[True], goal) >= _correlation(told[False], goal)

    def _improving(self, index: int, rng: np.random.Generator, known: Sequence[Seen], running: Sequence[Seen]) -> Draw:
        targets = self._first_goal(known) if len(self.objective.goals) == 1 else _scalarised(rng, known)
        lies = [np.append(target, [target[_best(targets)]] * len(running)) for target in targets]
        drawn = [*known, *running]
        model = self._model(drawn, lies, is_law=False)
        pool = self._pool(rng, known)
        mean, sd = self._expected(model, pool)
        score, may_improve = self._log_allowed(known, pool), False
        # What breaks a constraint is nothing to improve on.
        if kept := [each.draw.values for each in drawn if all(broken <= 0 for broken in each.violations)]:
            better = (self._expected(model, kept)[0].min() - mean) / sd
            gain = sd * (better * norm.cdf(better) + norm.pdf(better))
            score = score + np.log(np.maximum(gain, 1e-300))
            may_improve = True
        chosen = int(np.argmax(score))
        promised = float(np.exp(score[chosen])) if may_improve else None
        return Draw(index, pool[chosen], "expected improvement", float(mean[chosen]), promised)

    def _log_allowed(self, known: Sequence[Seen], pool: Sequence[Values]) -> Vector:
        """Logarithm of the probability that all constraints are kept."""
        total = np.zeros(len(pool))
        for number in range(len(self.objective.constraints)):
            finite = [each for each in known if np.isfinite(each.violations[number])]
            if len(finite) >= 3:
                broken = np.array([each.violations[number] for each in finite])
                model = GaussianProcess.fit(self._points(finite, is_law=False), broken, self.space.blocks)
                mean, sd = model.predict(self._coordinates(pool, is_law=False))
                total += norm.logcdf(-mean / sd)
        return total

    def _solved(self, index: int, rng: np.random.Generator, known: Sequence[Seen]) -> Draw:
        explore = (index - self.initial) % 2 == 1
        some = [known[each] for each in rng.integers(len(known), size=len(known))] if explore else known
        model = self._model(some, self._first_goal(some), is_law=True)
        values, expected = self._best_of_law(model, self._pool(rng, known))
        gain = max(0.0, float(self._expected(model, [each.draw.values for each in known])[0].min()) - expected)
        origin = "log-linear law of a bootstrap sample" if explore else "log-linear law"
        return Draw(index, values, origin, expected, gain)

    def _best_of_law(self, model: "_Model", pool: Sequence[Values]) -> tuple[Values, float]:
        """The pool's best, from there down to the bottom: the sum of the laws and of the distance is convex."""
        mean, _ = self._expected(model, pool)
        best = pool[int(np.argmin(mean))]
        mixtures = self.space.mixtures
        assert mixtures is not None
        start = mixtures.point(best)
        beside = self._coordinates([best], is_law=True)[0, len(start) :]  # coordinates begin with those of the point

        def values_of(point: Vector) -> Values:
            return {**best, **mixtures.values(point)}

        def cost(point: Vector) -> float:
            inside = np.clip(point, 0, 1)
            at = np.concatenate([inside, beside])[None, :]
            distance = self.kl_to_prior * mixtures.distance(inside) if self.kl_to_prior else 0.0
            return float(sum(each.predict(at)[0][0] for each in model.parts)) + distance

        count = len(mixtures.names)
        limits = mixtures.restricted([index for index in mixtures.optional if start[index] == 0]).limits
        bounds = list(zip(limits.low, limits.high, strict=True)) * len(mixtures.shares(start))
        bounds += [mixtures.until] if mixtures.until else []
        rules: list[dict[str, Any]] = []
        for part in range(len(mixtures.shares(start))):
            inside = slice(part * count, (part + 1) * count)
            rules.append({"type": "eq", "fun": lambda point, inside=inside: point[inside].sum() - 1})
            if len(limits.bound):
                room = lambda point, inside=inside: limits.bound - limits.matrix @ point[inside]  # noqa: E731
                rules.append({"type": "ineq", "fun": room})
        found = minimize(cost, start, method="SLSQP", bounds=bounds, constraints=rules, options={"maxiter": 200})
        point = np.clip(found.x, 0, 1)
        for part in range(len(mixtures.shares(start))):
            inside = slice(part * count, (part + 1) * count)
            point[inside] /= point[inside].sum()
        kept = all(bool(limits.holds(shares)) for shares in mixtures.shares(point))
        return (values_of(point), cost(point)) if kept and cost(point) < mean.min() else (best, float(mean.min()))

    def _expected(self, model: "_Model", pool: Sequence[Values]) -> tuple[Vector, Vector]:
        """Goal and its standard deviation at each draw, with what distance from the prior costs."""
        points = self._coordinates(pool, is_law=model.is_law)
        predicted = [each.predict(points) for each in model.parts]
        mean = np.sum([each for each, _ in predicted], axis=0) + self._distances(pool)
        return mean, np.sqrt(np.sum([sd**2 for _, sd in predicted], axis=0))

    def _distances(self, pool: Sequence[Values]) -> Vector:
        mixtures = self.space.mixtures
        if mixtures is None or not self.kl_to_prior:
            return np.zeros(len(pool))
        return self.kl_to_prior * np.array([mixtures.distance(mixtures.point(values)) for values in pool])

    def _model(self, known: Sequence[Seen], targets: Sequence[Vector], *, is_law: bool) -> "_Model":
        points = self._points(known, is_law=is_law)
        if is_law:
            return _Model([LogLinear.fit(points, target) for target in targets], is_law=True)
        return _Model([GaussianProcess.fit(points, target, self.space.blocks) for target in targets], is_law=False)

    def _points(self, known: Sequence[Seen], *, is_law: bool) -> Vector:
        return self._coordinates([each.draw.values for each in known], is_law=is_law)

    def _coordinates(self, pool: Sequence[Values], *, is_law: bool) -> Vector:
        points = np.array([self.space.coordinates(values) for values in pool])
        if is_law:  # it is of shares, not of their roots
            count = sum(self.space.blocks[: 1 if self.space.mixtures and not self.space.mixtures.until else 2])
            points[:, :count] **= 2
        return points

    def _pool(self, rng: np.random.Generator, known: Sequence[Seen]) -> list[Values]:
        best = sorted(known, key=self._loss)[:_BEST]
        near = [values for each in best for values in self.space.near(rng, each.draw.values, _NEAR)]
        return [*self.space.draws(rng, _POOL), *near]

    def _first_goal(self, known: Sequence[Seen]) -> list[Vector]:
        """Each metric's part in the first goal, less being better."""
        goal = self.objective.goals[0]
        sign = 1.0 if goal.mode == "min" else -1.0
        return [
            np.array([sign * weight * (each.metrics or {})[metric] for each in known])
            for metric, weight in goal.weights.items()
            if weight
        ]

    def _loss(self, seen: Seen) -> float:
        assert seen.losses is not None
        return seen.losses[0]


@dataclass(frozen=True, slots=True)
class _Model:
    """What is expected of a draw: the sum of its parts, one for each metric of the goal."""

    parts: list[Surrogate]
    is_law: bool


def _correlation(told: Vector, goal: Vector) -> float:
    """Of ranks; one number for all trials ranks nothing."""
    return float(spearmanr(told, goal).statistic) if np.ptp(told) > 0 and np.ptp(goal) > 0 else 0.0


def _measured(seen: Sequence[Seen]) -> list[Seen]:
    return [
        each
        for each in seen
        if each.status == "ended" and each.losses is not None and all(np.isfinite(loss) for loss in each.losses)
    ]


def _best(targets: Sequence[Vector]) -> int:
    return int(np.argmin(np.sum(targets, axis=0)))


def _scalarised(rng: np.random.Generator, known: Sequence[Seen]) -> list[Vector]:
    """Several goals as one, with new weights in each proposal, so that all of the front is reached (ParEGO, 2006)."""
    losses = np.array([each.losses for each in known])
    spread = np.ptp(losses, axis=0)
    unit = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    weighted = unit * rng.dirichlet(np.ones(losses.shape[1]))
    return [weighted.max(axis=1) + 0.05 * weighted.sum(axis=1)]
