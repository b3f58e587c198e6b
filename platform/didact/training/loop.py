"""The training loop, on one worker, from top to bottom. It knows nothing of Ray, MLflow or terminals."""

from collections.abc import Callable, Sequence

import torch

from didact.spec import MethodSpec, TrainingSpec
from didact.tokens import StepBatches, StepLoader
from didact.training.callbacks import Callback
from didact.training.checkpoints import Checkpoints
from didact.training.course import Course, TrainResult
from didact.training.objective import Objective, StepLoss
from didact.training.world import World


def train(
    model: torch.nn.Module,
    loader: StepLoader,
    spec: TrainingSpec,
    *,
    num_steps: int,
    compute_dtype: torch.dtype,
    checkpoints: Checkpoints,
    adapter: MethodSpec | None = None,
    callbacks: Sequence[Callback] = (),
    evaluate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    world: World | None = None,
    stop: Callable[[], bool] = lambda: False,
    until: int | None = None,
) -> TrainResult:
    """Train `model` until `num_steps`, continuing from the newest checkpoint.

    Every worker calls this with the same arguments; they stay in step by the sums of gradients.

    Args:
        model: with the parameters to train requiring gradients, equal on all workers.
        loader: gives each step's batches as a pure function of (step, rank, world size).
        spec: optimizer and schedule.
        num_steps: optimizer steps of the whole run.
        compute_dtype: of the matrix products; below float32 the loop computes under autocast.
        checkpoints: where states are kept; worker 0 writes.
        adapter: the method, for what it asks of the optimizer (LoRA+).
        callbacks: told of every step; their `close` always runs.
        evaluate: called every `spec.evaluate_every` steps and at the end, on every worker; its metrics are reported.
        world: default: the initialised process group.
        stop: asked in every step; when any worker's says yes, all finish the step, save a checkpoint and return.
        until: steps after which to save a checkpoint and return, to be gone on from later; None for all.

    Raises:
        TrainingDiverged: more than `spec.max_skipped_steps` steps were NaN or infinite; none changed the weights.
    """
    course = Course(
        model,
        loader,
        spec,
        num_steps=num_steps,
        compute_dtype=compute_dtype,
        checkpoints=checkpoints,
        adapter=adapter,
        callbacks=callbacks,
        evaluate=(lambda: evaluate(model)) if evaluate else None,
        world=world or World.current(),
        stop=stop,
        until=until,
    )
    objective = Objective(course.sharding.model, compute_dtype, course.sharding.device)
    try:
        course.begin()
        while course.goes_on:
            batches = course.take()
            course.learn(batches, _accumulated(course, model, objective, batches))
    finally:
        course.close()
    return course.result()


def _accumulated(course: Course, model: torch.nn.Module, objective: Objective, batches: StepBatches) -> StepLoss:
    """This worker's part of the step's loss, its gradients added up over its micro-batches."""
    model.train()
    torch.manual_seed(course.seed)
    loss = torch.zeros((), device=objective.device)
    scale = course.loss_scale(batches.num_supervised)
    of_targets = []
    for batch in batches.micro_batches:
        found = objective.losses(batch)
        part = found.summed / batches.num_supervised
        course.sharding.backward(part * scale)
        loss += part.detach()
        of_targets.append(found.of_targets)
    return StepLoss.of(loss, batches, of_targets)
