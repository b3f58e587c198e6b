"""Models of single sources as parts of a blend: what it would say of held-out answers, and the best blend by that.

A model that was trained on a mixture comes near to the mixture of the models of its sources, whose probabilities add
up; so the best mixture for some answers is where a convex function is least (MixMin, Thudi et al. 2025, "MixMin:
finding data mixtures via convex minimization", arXiv 2502.10510).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from didact.cluster.worker import settle_dtype
from didact.evaluation import task_texts
from didact.evaluation.losses import sample_losses
from didact.models import start_from
from didact.preparation import prepare_data
from didact.spec import FinetuneSpec
from didact.training import trainable_model
from didact.tuning.spaces.polytope import Polytope, Vector

_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Answers:
    """What models of single sources say of the held-out answers of one source."""

    logs: Vector
    """float64 [answers, sources]: logarithm of each answer's probability by each model, in nats."""
    targets: Vector
    """[answers]: tokens of each."""

    def loss(self, blend: Vector) -> float:
        """Nats a token of a blend of the models, whose shares [sources] are of samples and add up to one."""
        told = logsumexp(self.logs, axis=1, b=np.maximum(blend, _LEAST))
        return float(-told.sum() / self.targets.sum())


def blend_losses(answers: Mapping[str, Answers], blend: Vector) -> dict[str, float]:
    """Held-out losses as a run reports them, of a blend.

    Args:
        answers: source -> its held-out answers.
        blend: shares of samples.
    """
    found = {name: each.loss(blend) for name, each in answers.items()}
    tokens = {name: float(each.targets.sum()) for name, each in answers.items()}
    both = sum(found[name] * tokens[name] for name in found) / sum(tokens.values())
    return {**{f"eval/{name}/loss": loss for name, loss in found.items()}, "eval/loss": both}


def of_samples(shares: Vector, mean_tokens: Sequence[float] | None) -> Vector:
    """Shares of samples, of shares of tokens; None where they are of samples already."""
    counts = shares if mean_tokens is None else shares / np.array(mean_tokens)
    total: Vector = counts / counts.sum()
    return total


def best_blend(
    answers: Mapping[str, Answers],
    weights: Mapping[str, float],
    limits: Polytope,
    start: Vector,
    mean_tokens: Sequence[float] | None = None,
) -> Vector:
    """The mixture within limits whose blend has the least weighted sum of losses.

    Args:
        answers: source -> its held-out answers.
        weights: metric -> its weight in the sum, less being better.
        limits: of shares in the unit that is searched.
        start: shares within them.
        mean_tokens: of each source, where shares are of tokens. The loss then has one bottom as well, since shares of
            samples are a projective map of those of tokens.

    Returns:
        Its shares; `start` where none better is found.
    """

    def cost(shares: Vector) -> float:
        losses = blend_losses(answers, of_samples(np.clip(shares, _LEAST, 1), mean_tokens))
        return sum(weight * losses[metric] for metric, weight in weights.items())

    rules: list[dict[str, Any]] = [{"type": "eq", "fun": lambda shares: shares.sum() - 1}]
    if len(limits.bound):
        rules.append({"type": "ineq", "fun": lambda shares: limits.bound - limits.matrix @ shares})
    bounds = list(zip(limits.low, limits.high, strict=True))
    options = {"maxiter": 500, "ftol": 1e-12}
    found = minimize(cost, start, method="SLSQP", bounds=bounds, constraints=rules, options=options)
    shares: Vector = np.clip(found.x, limits.low, limits.high)
    shares /= shares.sum()
    return shares if bool(limits.holds(shares)) and cost(shares) < cost(start) else start


def answers_of(spec: FinetuneSpec, adapters: Sequence[Path], device: torch.device) -> dict[str, Answers]:
    """Have the models of single sources say what they think of all held-out answers.

    Args:
        spec: the recipe that they were trained by.
        adapters: their folders, a source each.
        device: what computes.
    """
    prepared = prepare_data(spec, task_texts=task_texts)
    model, packing = trainable_model(settle_dtype(spec, device), prepared.num_steps, device)
    logs: dict[str, list[Vector]] = {name: [] for name, table in prepared.mixture.held_out.items() if len(table)}
    targets: dict[str, Vector] = {}
    for folder in adapters:
        start_from(model, folder)
        for name in logs:
            summed, learned = sample_losses(
                model,
                prepared.mixture.held_out[name],
                pad_id=prepared.tokenizer.pad_token_id,
                packing=packing,
                device=device,
            )
            logs[name].append(-summed.numpy())
            targets[name] = learned.numpy()
    return {name: Answers(np.stack(each, axis=1), targets[name]) for name, each in logs.items()}
