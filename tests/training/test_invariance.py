"""Loss and gradient do not depend on how a step is computed: workers, accumulation, packing, padding."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from didact.models import attach_adapter, load_base
from didact.preparation import prepare_data
from didact.spec import FinetuneSpec
from didact.training import Callback
from tests.fakes.loops import Loop, run_loops
from tests.fakes.recipes import tiny_recipe

Gradients = dict[str, torch.Tensor]
LOSS_TOLERANCE = 2e-6  # relative, float32
GRADIENT_TOLERANCE = 2e-5  # of the largest gradient, float32
COMPUTED = {
    "packed": {"tokens__packing": True},
    "padded": {"tokens__packing": False},
}
"""Ways to compute a micro-batch; each must give the oracle's figures."""


def recipe(folder: Path, **changes: object) -> FinetuneSpec:
    """One step without clipping, which would scale gradients; samples begin with the same words."""
    fixed = {
        "tokens__template": "alpaca",
        "adapter__dropout": 0.0,
        "training__steps": 1,
        "training__max_grad_norm": 1e9,
    }
    return tiny_recipe(folder, **{**fixed, **changes})


def oracle(spec: FinetuneSpec) -> tuple[float, Gradients]:
    """Sample by sample, every position projected, in float64."""
    prepared = prepare_data(spec)
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="tiny").double().train()
    batches = prepared.loader(recipe_of_one(spec), packing=True).step(0)
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches.micro_batches:
        logits = model(input_ids=batch.input_ids).logits[0]
        part = torch.nn.functional.cross_entropy(logits, batch.targets[0], ignore_index=-100, reduction="sum")
        (part / batches.num_supervised).backward()
        total += part.detach() / batches.num_supervised
    return total.item(), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def recipe_of_one(spec: FinetuneSpec) -> FinetuneSpec:
    return spec.model_copy(update={"training": spec.training.model_copy(update={"micro_batch_size": 1})})


def one_step(spec: FinetuneSpec, folder: Path, workers: int) -> tuple[list[Loop], list[Gradients]]:
    """One step on `workers` threads, and the gradients that each worker's optimizer was given.

    One hook for all: torch keeps hooks in one dictionary, which a thread that ends must not change while others step.
    """
    models: list[torch.nn.Module] = []
    found: dict[int, Gradients] = {}

    def keep(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        first = optimizer.param_groups[0]["params"][0]
        for model in models:
            trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
            if next(iter(trained.values())) is first:
                found[id(model)] = {name: each.grad.clone() for name, each in trained.items() if each.grad is not None}

    def remember(model: torch.nn.Module, rank: int) -> Sequence[Callback]:
        models.append(model)
        return ()

    hook = register_optimizer_step_pre_hook(keep)
    try:
        loops = run_loops(spec, folder, workers, remember)
    finally:
        hook.remove()
    return loops, [found[id(model)] for model in models]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("invariance")


@pytest.fixture(scope="module")
def expected(folder: Path) -> tuple[float, Gradients]:
    return oracle(recipe(folder))


@pytest.mark.parametrize("computed", COMPUTED)
@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_loss_and_gradient_are_the_oracles(
    folder: Path,
    tmp_path: Path,
    expected: tuple[float, Gradients],
    workers: int,
    micro_batch_size: int,
    computed: str,
) -> None:
    spec = recipe(folder, training__micro_batch_size=micro_batch_size, **COMPUTED[computed])
    loops, gradients = one_step(spec, tmp_path, workers)
    loss, gradient = expected
    largest = max(each.abs().max().item() for each in gradient.values())
    for loop, kept in zip(loops, gradients, strict=True):
        assert loop.losses == pytest.approx([loss], rel=LOSS_TOLERANCE)
        assert kept.keys() == gradient.keys()
        for name, value in gradient.items():
            assert (kept[name] - value).abs().max().item() <= GRADIENT_TOLERANCE * largest, name


@pytest.mark.fault("T11")
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_any_number_of_workers_sees_the_same_samples_in_the_same_order(folder: Path, workers: int) -> None:
    spec = recipe(folder)
    loader = prepare_data(spec).loader(spec)
    for step in range(20):
        alone = loader.step(step)
        shares = [loader.step(step, rank, workers) for rank in range(workers)]
        for share in shares:
            assert share.sample_ids == alone.sample_ids
            assert (share.num_supervised, share.num_tokens) == (alone.num_supervised, alone.num_tokens)
        assert sum(batch.num_tokens for share in shares for batch in share.micro_batches) == alone.num_tokens
        assert sum(batch.num_supervised for share in shares for batch in share.micro_batches) == alone.num_supervised


@pytest.mark.fault("T11")
def test_workers_that_change_between_checkpoints_keep_the_losses(folder: Path, tmp_path: Path) -> None:
    spec = recipe(folder, training__steps=8)
    alone = run_loops(spec, tmp_path / "a", 1)[0]
    losses: list[float] = []
    for workers, steps in ((3, 4), (1, 6), (2, 8)):
        shorter = recipe(folder, training__steps=steps, training__schedule="constant", training__warmup_share=0.0)
        losses += run_loops(shorter, tmp_path / "b", workers)[0].losses
    steady = recipe(folder, training__steps=8, training__schedule="constant", training__warmup_share=0.0)
    expected = run_loops(steady, tmp_path / "c", 1)[0]
    assert losses == pytest.approx(expected.losses, rel=2e-6)
    assert [report.sample_ids for report in alone.reports] == [report.sample_ids for report in expected.reports]
