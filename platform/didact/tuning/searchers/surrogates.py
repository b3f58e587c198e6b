"""Models of a measured number over draws: a Gaussian process, and a law that is linear in the logarithm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import least_squares, minimize
from typing_extensions import override

from didact.tuning.spaces.polytope import Vector

_LENGTH, _SPREAD = 0.6, 0.6
"""Middle and standard deviation (of the logarithm) of the prior over length scales; coordinates span 0 to 1."""
_NOISE, _NOISE_SPREAD = 0.02, 1.5
_RIDGE = 1e-3


class Surrogate(Protocol):
    """A fitted model."""

    def predict(self, points: Vector) -> tuple[Vector, Vector]:
        """Mean and standard deviation at points of shape (count, coordinates)."""
        ...

    def left_out(self) -> Vector:
        """For each measurement what the model says of it without having seen it."""
        ...


@dataclass(frozen=True, eq=False)
class GaussianProcess(Surrogate):
    """Squared exponential kernel with one length scale a block of coordinates (Rasmussen and Williams 2006, 2.2, 5.4).

    Scales and noise are at the mode of their posterior, with log-normal priors that few measurements need.
    """

    points: Vector
    offset: float
    scale: float
    blocks: tuple[int, ...]
    theta: Vector
    """Logarithms of signal variance, length scales, noise variance, of values of unit variance."""
    inverse: Vector
    weights: Vector
    """Inverse of the kernel matrix times the values."""
    values: Vector

    @classmethod
    def fit(cls, points: Vector, values: Vector, blocks: Sequence[int]) -> "GaussianProcess":
        """Fit to `values` at `points`, of shape (count, coordinates); `blocks` are sizes that add up to them."""
        offset, scale = float(values.mean()), float(values.std()) or 1.0
        unit = (values - offset) / scale
        squares = _distances(points, points, blocks)
        prior = np.array([0.0, *[np.log(_LENGTH)] * len(blocks), np.log(_NOISE)])
        spread = np.array([1.0, *[_SPREAD] * len(blocks), _NOISE_SPREAD])

        def cost(theta: Vector) -> tuple[float, Vector]:
            signal = _kernel(squares, theta)
            matrix = signal + (np.exp(theta[-1]) + 1e-9) * np.eye(len(unit))
            factor = cho_factor(matrix, lower=True)
            weights, inverse = cho_solve(factor, unit), cho_solve(factor, np.eye(len(unit)))
            outer = np.outer(weights, weights) - inverse
            parts = [
                signal,
                *(signal * square / np.exp(2 * log) for square, log in zip(squares, theta[1:-1], strict=True)),
            ]
            slopes = [float(np.sum(outer * part)) / 2 for part in parts]
            slopes.append(float(np.trace(outer)) * np.exp(theta[-1]) / 2)
            off = (theta - prior) / spread
            log_likelihood = -unit @ weights / 2 - np.log(np.diag(factor[0])).sum()
            return float(off @ off / 2 - log_likelihood), off / spread - np.array(slopes)

        starts = [prior, prior + np.array([0.0, *[-0.7] * len(blocks), 2.0])]
        bounds = [(-4.0, 4.0), *[(-3.5, 3.0)] * len(blocks), (-12.0, 2.0)]
        found = [minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
        theta = min(found, key=lambda each: float(each.fun)).x
        matrix = _kernel(squares, theta) + (np.exp(theta[-1]) + 1e-9) * np.eye(len(unit))
        inverse = np.linalg.inv(matrix)
        return cls(points, offset, scale, tuple(blocks), theta, inverse, inverse @ unit, values)

    @override
    def predict(self, points: Vector) -> tuple[Vector, Vector]:
        kernel = _kernel(_distances(points, self.points, self.blocks), self.theta)
        mean = kernel @ self.weights
        variance = np.exp(self.theta[0]) - np.einsum("ij,jk,ik->i", kernel, self.inverse, kernel)
        return self.offset + self.scale * mean, self.scale * np.sqrt(np.maximum(variance, 1e-12))

    @override
    def left_out(self) -> Vector:
        # Rasmussen and Williams (2006), equation 5.12.
        return self.values - self.scale * self.weights / np.diag(self.inverse)


@dataclass(frozen=True, eq=False)
class LogLinear(Surrogate):
    """The law c + exp(a + t . x), convex in x, for many sources (Olmix, arXiv 2602.12237)."""

    points: Vector
    values: Vector
    law: Vector
    """Logarithm of the room between c and the least value, a, then t."""
    sd: float
    """Of the residuals."""

    @classmethod
    def fit(cls, points: Vector, values: Vector) -> "LogLinear":
        """Fit to `values` at `points`, of shape (count, coordinates)."""
        law = _fit_law(points, values)
        residuals = _law(law, points, values.min()) - values
        return cls(points, values, law, float(np.sqrt(np.mean(residuals**2))))

    @override
    def predict(self, points: Vector) -> tuple[Vector, Vector]:
        mean = _law(self.law, points, self.values.min())
        return mean, np.full(len(points), max(self.sd, 1e-12))

    @override
    def left_out(self) -> Vector:
        keep = ~np.eye(len(self.values), dtype=bool)
        found = []
        for index, others in enumerate(keep):
            law = _fit_law(self.points[others], self.values[others], self.law)
            found.append(_law(law, self.points[index : index + 1], self.values[others].min())[0])
        return np.array(found)


def _distances(left: Vector, right: Vector, blocks: Sequence[int]) -> list[Vector]:
    """Squared distances by block."""
    edges = np.cumsum([0, *blocks])
    return [
        np.sum((left[:, None, start:stop] - right[None, :, start:stop]) ** 2, axis=-1)
        for start, stop in pairwise(edges)
    ]


def _kernel(squares: Sequence[Vector], theta: Vector) -> Vector:
    total = sum(square / np.exp(2 * log) for square, log in zip(squares, theta[1:-1], strict=True))
    kernel: Vector = np.exp(theta[0] - np.asarray(total) / 2)
    return kernel


def _law(law: Vector, points: Vector, least: float) -> Vector:
    curve: Vector = least - np.exp(np.clip(law[0], -30, 30)) + np.exp(np.clip(law[1] + points @ law[2:], -30, 30))
    return curve


def _fit_law(points: Vector, values: Vector, start: Vector | None = None) -> Vector:
    """By least squares with a small ridge, from the best of several floors c, each solved in the logarithm."""
    spread = float(values.std()) or 1.0
    least = values.min()

    def off(law: Vector) -> Vector:
        misses = (_law(law, points, least) - values) / spread
        return np.concatenate([misses, np.sqrt(_RIDGE) * (law[2:] - law[2:].mean())])

    def slopes(law: Vector) -> Vector:
        curve = np.exp(np.clip(law[1] + points @ law[2:], -30, 30))
        room = np.full(len(points), -np.exp(np.clip(law[0], -30, 30)))
        rows = np.column_stack([room, curve, curve[:, None] * points]) / spread
        ridge = np.sqrt(_RIDGE) * (np.eye(points.shape[1]) - 1 / points.shape[1])
        return np.vstack([rows, np.hstack([np.zeros((points.shape[1], 2)), ridge])])

    starts = [start] if start is not None else [_start(points, values, room * spread) for room in (0.05, 0.3, 1.0, 4.0)]
    found = [least_squares(off, each, jac=slopes, max_nfev=200) for each in starts]
    best: Vector = min(found, key=lambda each: float(each.cost)).x
    return best


def _start(points: Vector, values: Vector, room: float) -> Vector:
    logs = np.log(values - values.min() + room)
    design = np.column_stack([np.ones(len(points)), points])
    ridge = 1e-2 * np.eye(design.shape[1])
    slopes = np.linalg.solve(design.T @ design + ridge, design.T @ logs)
    return np.array([np.log(room), *slopes])


Fit = Callable[[Vector, Vector], Surrogate]
