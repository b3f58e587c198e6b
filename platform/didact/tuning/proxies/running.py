"""A proxy's runs and what follows from them; each is an ordinary run in `<sweep>/proxy/`.

<sweep>/proxy.json      what it says of each mixture
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from didact.cluster import finetune_each, has_trained
from didact.cluster.placement import worker_resources
from didact.cluster.worker import held_out_losses, settle_dtype
from didact.connect import receive
from didact.errors import SpecError
from didact.evaluation import task_texts
from didact.files import write_json
from didact.logs import get_logger
from didact.preparation import prepare_data
from didact.runs import Run
from didact.spec import FinetuneSpec, LoraSpec, validate
from didact.spec.search.proxy import ProxySpec
from didact.training import World
from didact.tuning.proxies.merging import merged_model
from didact.tuning.proxies.mixmin import Answers, answers_of, best_blend, blend_losses, of_samples
from didact.tuning.search import Search, named_mixtures, trial_spec
from didact.tuning.searchers import MixtureProposer, Ranking, ranking_of
from didact.tuning.spaces import Values
from didact.tuning.spaces.polytope import Vector
from didact.tuning.trial import TrialPlan

_LOG = get_logger(__name__)
_STREAM = 1 << 21
"""Sets the proxy's draws apart from those of trials."""


def check_proxy(search: Search) -> None:
    """Refuse a proxy whose adapters could not be added up; before anything starts.

    Raises:
        SpecError: with file and field.
    """
    where, space, base = f"{search.origin}: proxy", search.space, search.base()
    lora = base.adapter
    if space.mixtures is None or space.mixtures.until is not None or space.mixtures.optional:
        raise SpecError(
            f"{where}: it ranks mixtures of fixed sources; draw data.weights, without curriculum and optional"
        )
    if search.sweep.proxy is not None and search.sweep.proxy.method == "mixmin":
        _check_models(search, where)
    elif (
        not isinstance(lora, LoraSpec) or lora.dora or lora.train_new_tokens or lora.init not in ("default", "gaussian")
    ):
        raise SpecError(
            f"{where}: updates add up for plain LoRA alone, with adapter.init 'default' or 'gaussian', without dora "
            "and train_new_tokens"
        )
    odd = [metric for metric in search.objective.goals[0].weights if not metric.startswith("eval/")]
    if odd:
        raise SpecError(f"{where}: it knows held-out losses; found {odd[0]!r} in the goal")


def _check_models(search: Search, where: str) -> None:
    adapter = search.base().adapter
    own = isinstance(adapter, LoraSpec) and adapter.init != "default"
    if own or adapter.method in ("full", "adalora"):
        found = "adapter.init " + repr(getattr(adapter, "init", None)) if own else f"adapter.method {adapter.method!r}"
        raise SpecError(
            f"{where}: mixmin puts one adapter after the other onto a base; found {found}, expected one that begins as "
            "it was saved (docs/training.md, adapter.from)"
        )


def proxied(plan: TrialPlan, proposer: MixtureProposer, num_steps: int) -> MixtureProposer:
    """The searcher with what the proxy ranks; called again after an interruption, it goes on where it was.

    Must be called within `ray_cluster`.

    Args:
        plan: of the sweep, which asks for a proxy.
        proposer: tries named mixtures first.
        num_steps: of a trial.
    """
    search, asked = plan.search, plan.search.sweep.proxy
    assert asked is not None and search.space.mixtures is not None
    file = plan.trials_dir.parent / "proxy.json"
    if not file.is_file():
        write_json(file, _measured(plan, asked, num_steps))
    kept = json.loads(file.read_text(encoding="utf-8"))
    if "problem" in kept:
        return replace(proposer, ranking=Ranking((), (), asked.at_least, kept["problem"]))
    scored = [(each["values"], _loss(search, each["metrics"])) for each in kept["mixes"]]
    named = len(kept["named"])
    top = asked.top or 2 * len(search.space.mixtures.names)
    first, ranking = ranking_of(
        scored[:named], scored[named:], calibrate=asked.calibrate, top=top, at_least=asked.at_least
    )
    starts = [*zip(kept["named"], [values for values, _ in scored[:named]], strict=True)]
    starts += [("to calibrate the proxy", values) for values in first]
    return replace(proposer, starts=tuple(starts), ranking=ranking)


def source_weights(prior: Vector, index: int, general: float) -> Vector:
    """Shares of the run of one source: `general` of the prior, the rest its own."""
    weights: Vector = general * prior + (1 - general) * np.eye(len(prior))[index]
    return weights


def score_mixes(
    spec: FinetuneSpec, adapters: Sequence[Path], mixes: Sequence[Sequence[float]], device: torch.device
) -> list[dict[str, float]]:
    """Held-out losses of each sum of adapters, with shares as weights.

    Args:
        spec: the recipe that they were trained by.
        adapters: their folders, a source each.
        mixes: shares of the sources, one mixture a line.
        device: what computes.
    """
    prepared = prepare_data(spec, task_texts=task_texts)
    model, merged, packing = merged_model(settle_dtype(spec, device), adapters, device, prepared.num_steps)
    found = []
    for shares in mixes:
        merged.weigh(shares)
        found.append(held_out_losses(model, prepared, World(), packing=packing, device=device))
    return found


def _measured(plan: TrialPlan, asked: ProxySpec, num_steps: int) -> dict[str, Any]:
    """What is written down: mixtures with what sums of adapters measure, or why there is nothing."""
    search, mixtures, folder = plan.search, plan.search.space.mixtures, plan.trials_dir.parent / "proxy"
    assert mixtures is not None
    specs = [_source_spec(plan, asked, index, num_steps) for index in range(len(mixtures.names))]
    waiting = [spec for spec in specs if not has_trained(Run(folder / spec.name))]
    _LOG.info("proxy: %d of %d runs of single sources are to be made", len(waiting), len(specs))
    if waiting:
        for place, error in finetune_each(waiting, folder, plan.at_once, parent_run_id=plan.parent_run_id):
            if error is not None:
                _LOG.warning("proxy: run %s failed: %s", waiting[place].name, error)
    if failed := [spec.name for spec in specs if not has_trained(Run(folder / spec.name))]:
        return {"problem": f"run {failed[0]} failed"}
    named = named_mixtures(search)
    points = [*(mixtures.point(values) for _, values in named), *_draws(search, asked.mixes)]
    adapters = [Run(folder / spec.name).adapter for spec in specs]
    if asked.method == "mixmin":
        answers = _on_a_worker(answers_of, specs[0], adapters)
        mean_tokens = _mean_tokens(search)
        points.append(_solved(search, answers, points, mean_tokens))
        metrics = [blend_losses(answers, of_samples(point, mean_tokens)) for point in points]
    else:
        metrics = _on_a_worker(score_mixes, specs[0], adapters, [point.tolist() for point in points])
    mixes = [{"values": mixtures.values(point), "metrics": each} for point, each in zip(points, metrics, strict=True)]
    return {"named": [name for name, _ in named], "mixes": mixes}


def _solved(
    search: Search, answers: Mapping[str, Answers], points: Sequence[Vector], mean_tokens: Sequence[float] | None
) -> Vector:
    """The best mixture by the blend, from the best of those that were drawn."""
    goal, mixtures = search.objective.goals[0], search.space.mixtures
    assert mixtures is not None
    losses = [_loss(search, blend_losses(answers, of_samples(point, mean_tokens))) for point in points]
    weights = {metric: weight if goal.mode == "min" else -weight for metric, weight in goal.weights.items()}
    inside = [place for place, point in enumerate(points) if bool(mixtures.limits.holds(point))]
    start = points[min(inside, key=losses.__getitem__)]
    return best_blend(answers, weights, mixtures.limits, start, mean_tokens)


def _mean_tokens(search: Search) -> list[float] | None:
    """Of the sources, where shares are of tokens."""
    mixtures, sizes = search.space.mixtures, search.sizes
    assert mixtures is not None and sizes is not None
    unit = mixtures.unit or search.base().data.weight_unit
    return [sizes.mean_tokens[name] for name in mixtures.names] if unit == "tokens" else None


def _source_spec(plan: TrialPlan, asked: ProxySpec, index: int, num_steps: int) -> FinetuneSpec:
    search = plan.search
    mixtures = search.space.mixtures
    assert mixtures is not None
    values: Values = {
        **mixtures.values(source_weights(mixtures.prior, index, asked.general_share)),
        "training.steps": asked.steps or max(1, num_steps // 4),
        "training.epochs": None,
        # At a rate that falls to nothing an update depends on the run's length more than on its data.
        "training.schedule": "constant",
        "training.evaluate_every": None,
        "data.max_epochs": None,
        "data.online_mixing": None,
    }
    name = f"{search.sweep.name}-{mixtures.names[index]}"
    return trial_spec(search.recipe, values, name, search.origin, plan.tracking_uri)


def _draws(search: Search, count: int) -> list[Vector]:
    assert search.space.mixtures is not None
    return list(search.space.mixtures.draw(np.random.default_rng([search.sweep.seed, _STREAM]), count))


def _loss(search: Search, metrics: dict[str, float]) -> float:
    goal = search.objective.goals[0]
    value = search.objective.value(metrics)
    assert value is not None
    return value if goal.mode == "min" else -value


def _on_a_worker(work: Callable[..., Any], spec: FinetuneSpec, adapters: Sequence[Path], *arguments: Any) -> Any:
    resources = worker_resources(spec.placement)
    task = ray.remote(**resources.actor_options(), max_retries=0)(_elsewhere)
    folders = [str(each) for each in adapters]
    return ray.get(task.remote(work, spec.model_dump(mode="json"), folders, arguments, resources.use_gpu))


def _elsewhere(
    work: Callable[..., Any], values: dict[str, Any], adapters: list[str], arguments: tuple[Any, ...], use_gpu: bool
) -> Any:
    receive()
    spec = validate(FinetuneSpec, values, "proxy")
    if not use_gpu:
        torch.set_num_threads(spec.placement.cpus_per_worker)
    device = torch.device("cuda" if use_gpu else "cpu")
    return work(spec, [Path(each) for each in adapters], *arguments, device=device)
