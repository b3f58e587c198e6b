"""The training loop, on one worker, from top to bottom. It knows nothing of Ray, MLflow or terminals."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from didact.errors import TrainingDiverged
from didact.models import StepHook, step_hook
from didact.spec import MethodSpec, TrainingSpec
from didact.tokens import StepBatches, StepLoader
from didact.training.callbacks import Callback, StepReport
from didact.training.checkpoints import CheckpointStore
from didact.training.objective import Objective
from didact.training.schedule import learning_rate
from didact.training.sharding import Sharding, shard
from didact.training.world import World


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a finished loop ended."""

    steps: int
    """Optimizer steps of the whole run, resumed ones included."""
    loss: float | None
    """Loss of the last step; None when there was nothing left to do."""
    tokens: int
    """Real tokens seen by this attempt, over all workers."""
    seconds: float
    """Wall time of this attempt's steps."""


def train(
    model: torch.nn.Module,
    loader: StepLoader,
    spec: TrainingSpec,
    *,
    num_steps: int,
    compute_dtype: torch.dtype,
    checkpoints: CheckpointStore,
    adapter: MethodSpec | None = None,
    callbacks: Sequence[Callback] = (),
    evaluate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    world: World | None = None,
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

    Raises:
        TrainingDiverged: loss or gradient became NaN or infinite; the weights still are those of the step before.
    """
    world = world or World.current()
    sharding = shard(model, spec, adapter, world)
    hook = step_hook(model)
    stepper = _Stepper(model, sharding, hook, Objective(sharding.model, compute_dtype, sharding.device), spec, world)
    start = _resume(checkpoints, sharding, hook, world)
    began, tokens, loss = time.monotonic(), 0, None
    try:
        for callback in callbacks:
            callback.on_start(start, num_steps)
        for step in range(start, num_steps):
            done, last = step + 1, step + 1 == num_steps
            batches = loader.step(step, world.rank, world.size, even=sharding.lockstep)
            metrics = stepper.step(step, batches, learning_rate(step, num_steps, spec))
            loss, tokens = metrics["train/loss"], tokens + batches.num_tokens
            if evaluate and spec.evaluate_every and (done % spec.evaluate_every == 0 or last):
                metrics |= evaluate(model)
            checkpointed = done % spec.checkpoint_every == 0 or last
            if checkpointed and (state := sharding.state()):
                checkpoints.save(done, state, hook.state())
            for callback in callbacks:
                callback.on_step(StepReport(done, num_steps, metrics, batches.sample_ids, checkpointed))
    finally:
        for callback in callbacks:
            callback.close()
    return TrainResult(num_steps, loss, tokens, time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class _Stepper:
    """One optimizer step: accumulate this worker's micro-batches, sum over workers, check, update."""

    model: torch.nn.Module
    sharding: Sharding
    hook: StepHook
    objective: Objective
    spec: TrainingSpec
    world: World

    def step(self, step: int, batches: StepBatches, rate: float) -> dict[str, float]:
        began = time.monotonic()
        self.model.train()
        torch.manual_seed(_step_seed(self.spec.seed, step, self.world.rank))
        loss = torch.zeros((), device=self.objective.device)
        for batch in batches.micro_batches:
            part = self.objective.summed_loss(batch) / batches.num_supervised
            self.sharding.backward(part)
            loss += part.detach()
        loss_value = self.sharding.sum_gradients(loss).item()
        self.hook.before_update()
        norm = self.sharding.update(rate, self.spec.max_grad_norm) if math.isfinite(loss_value) else math.nan
        if not math.isfinite(norm):
            raise TrainingDiverged(_divergence(step, loss_value, norm, batches.sample_ids))
        self.hook.after_update(step + 1)
        self.sharding.clear_gradients()
        return {
            "train/loss": loss_value,
            "train/grad_norm": norm,
            "train/learning_rate": rate,
            "train/tokens_per_second": batches.num_tokens / (time.monotonic() - began),
        }


def _resume(checkpoints: CheckpointStore, sharding: Sharding, hook: StepHook, world: World) -> int:
    """Load the newest checkpoint on every worker; worker 0 chooses. Returns the number of steps already done."""
    found = checkpoints.newest() if world.rank == 0 else None
    step = world.agree(found.step if found else 0)
    if step:
        state, method_state = checkpoints.load(step, sharding.parameters.keys())
        sharding.load(state)
        hook.load_state(method_state)
    return step


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Dropout's randomness is a pure function of these three, so a resumed run draws what the unbroken one would."""
    return (seed * 1_000_003 + step) * 65_537 + rank


def _divergence(step: int, loss: float, norm: float, sample_ids: tuple[str, ...]) -> str:
    shown = ", ".join(sample_ids[:8]) + (" ..." if len(sample_ids) > 8 else "")
    return (
        f"step {step + 1} has loss {loss} and gradient norm {norm}; training stopped before changing the weights. "
        f"Samples of the step: {shown}. The last checkpoint is finite: lower training.learning_rate or check these rows"
    )
