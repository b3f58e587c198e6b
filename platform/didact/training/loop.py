"""The training loop, on one worker, from top to bottom. It knows nothing of Ray, MLflow or terminals."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from didact.models import StepHook, step_hook
from didact.spec import MethodSpec, TrainingSpec
from didact.tokens import StepBatches, StepLoader
from didact.training.callbacks import Callback, StepReport
from didact.training.checkpoints import Checkpoints
from didact.training.dropping import DroppingShares
from didact.training.objective import Objective
from didact.training.rates import learning_rate
from didact.training.sharding import Sharding, shard
from didact.training.skipping import SkippedSteps
from didact.training.world import World


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a finished loop ended."""

    steps: int
    """Optimizer steps done of the whole run, resumed ones included; fewer than asked when it was told to stop."""
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
    world = world or World.current()
    stepper = _Stepper.of(model, spec, adapter, compute_dtype, world, stop)
    done = start = stepper.resume(checkpoints)
    began, tokens, loss, pause = time.monotonic(), 0, None, min(until or num_steps, num_steps)
    try:
        for callback in callbacks:
            callback.on_start(start, num_steps)
        for done in range(start + 1, pause + 1):
            batches = loader.step(done - 1, world.rank, world.size, even=stepper.sharding.lockstep)
            metrics, stopping = stepper.step(done - 1, batches, learning_rate(done - 1, num_steps, spec))
            loss, tokens, healthy = metrics["train/loss"], tokens + batches.num_tokens, not stepper.skipped.too_many
            if healthy and evaluate and spec.evaluate_every and (done % spec.evaluate_every == 0 or done == num_steps):
                metrics |= evaluate(model)
            checkpointed = healthy and (done % spec.checkpoint_every == 0 or done == pause or stopping)
            if checkpointed and (state := stepper.sharding.state()):
                checkpoints.save(done, state, stepper.method_state())
            _tell(callbacks, StepReport(done, num_steps, metrics, batches.sample_ids, checkpointed))
            if stopping or not healthy:
                break
    finally:
        for callback in callbacks:
            callback.close()
    stepper.skipped.check()
    return TrainResult(done, loss, tokens, time.monotonic() - began)


def _tell(callbacks: Sequence[Callback], report: StepReport) -> None:
    for callback in callbacks:
        callback.on_step(report)


@dataclass(frozen=True, slots=True)
class _Stepper:
    """One optimizer step: accumulate this worker's micro-batches, sum over workers, update unless not finite."""

    model: torch.nn.Module
    sharding: Sharding
    hook: StepHook
    objective: Objective
    compute_dtype: torch.dtype
    spec: TrainingSpec
    world: World
    skipped: SkippedSteps
    stop: Callable[[], bool]
    dropping: DroppingShares

    @classmethod
    def of(
        cls,
        model: torch.nn.Module,
        spec: TrainingSpec,
        adapter: MethodSpec | None,
        compute_dtype: torch.dtype,
        world: World,
        stop: Callable[[], bool],
    ) -> "_Stepper":
        sharding = shard(model, spec, adapter, world)
        objective = Objective(sharding.model, compute_dtype, sharding.device)
        skipped = SkippedSteps(spec.max_skipped_steps)
        dropping = DroppingShares.of(model, spec, adapter)
        return cls(model, sharding, step_hook(model), objective, compute_dtype, spec, world, skipped, stop, dropping)

    def resume(self, checkpoints: Checkpoints) -> int:
        """Load the newest checkpoint on every worker; worker 0 chooses. Returns the number of steps already done."""
        found = checkpoints.newest() if self.world.rank == 0 else None
        step = self.world.agree(found.step if found else 0)
        if step:
            state, method_state = checkpoints.load(step, self.sharding.parameters.keys())
            self.sharding.load(state)
            self.hook.load_state(self.skipped.load_state(method_state))
        return step

    def loss_scale(self, num_supervised: int) -> float:
        """What the loss is multiplied by for its backward pass, a power of two, so that nothing is rounded by it.

        In float16 the gradient of a mean over many tokens vanishes below 6e-8; that of their sum does not.
        """
        if self.compute_dtype != torch.float16:
            return 1.0
        return 2.0 ** max(0, num_supervised.bit_length() - 1)

    def method_state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds besides weights and the optimizer's moments."""
        return self.hook.state() | self.skipped.state()

    def step(self, step: int, batches: StepBatches, rate: float) -> tuple[dict[str, float], bool]:
        """Do step `step` (from 0). Returns its metrics, and whether any worker was asked to stop."""
        began = time.monotonic()
        self.model.train()
        self.dropping.set(step)
        torch.manual_seed(_step_seed(self.spec.seed, step, self.world.rank))
        loss = torch.zeros((), device=self.objective.device)
        scale = self.loss_scale(batches.num_supervised)
        for batch in batches.micro_batches:
            part = self.objective.summed_loss(batch) / batches.num_supervised
            self.sharding.backward(part * scale)
            loss += part.detach()
        asked = torch.tensor(float(self.stop()), device=loss.device)
        loss_value, stopping = self.sharding.sum_gradients(torch.stack([loss, asked])).tolist()
        if scale != 1:
            self.sharding.divide_gradients(scale)
        self.hook.before_update()
        norm = self.sharding.update(rate, self.spec.max_grad_norm)
        if math.isfinite(loss_value) and math.isfinite(norm):
            self.hook.after_update(step + 1)
        else:
            self.skipped.add(step, loss_value, norm, batches.sample_ids)
        self.sharding.clear_gradients()
        metrics = {
            "train/loss": loss_value,
            "train/grad_norm": norm,
            "train/learning_rate": rate,
            "train/tokens": float(batches.num_tokens),
            "train/tokens_per_second": batches.num_tokens / (time.monotonic() - began),
        }
        return metrics | self.skipped.metrics(), stopping > 0


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Dropout's randomness is a pure function of these three, so a resumed run draws what the unbroken one would."""
    return (seed * 1_000_003 + step) * 65_537 + rank
