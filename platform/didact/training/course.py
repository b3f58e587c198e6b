"""One run's way through its optimizer steps: everything about a step but its forward and backward passes."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from didact.models import step_hook
from didact.spec import MethodSpec, TrainingSpec
from didact.tokens import StepBatches, StepLoader
from didact.training.callbacks import Callback, StepReport
from didact.training.checkpoints import Checkpoints
from didact.training.dropping import DroppingShares
from didact.training.mixing import OnlineMixing
from didact.training.objective import StepLoss
from didact.training.rates import learning_rate
from didact.training.sharding import shard
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


class Course:
    """Batches of the next step out, its loss and gradients in: updates, checkpoints, reports.

    Every worker of a run calls alike; they stay in step by the sums of gradients.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        loader: StepLoader,
        spec: TrainingSpec,
        *,
        num_steps: int,
        compute_dtype: torch.dtype,
        checkpoints: Checkpoints,
        adapter: MethodSpec | None,
        callbacks: Sequence[Callback],
        evaluate: Callable[[], dict[str, float]] | None,
        world: World,
        stop: Callable[[], bool],
        until: int | None = None,
    ) -> None:
        """As `train`; spreads the model over the workers and makes its optimizer."""
        self.sharding = shard(model, spec, adapter, world)
        self.num_steps = num_steps
        self.done = 0
        """Optimizer steps of the whole run that are done."""
        self._spec, self._compute_dtype = spec, compute_dtype
        self._mixing = OnlineMixing(loader, world)
        self._checkpoints, self._callbacks, self._evaluate = checkpoints, callbacks, evaluate
        self._world, self._stop, self._pause = world, stop, min(until or num_steps, num_steps)
        self._dropping = DroppingShares.of(model, spec, adapter)
        self._hook, self._skipped = step_hook(model), SkippedSteps(spec.max_skipped_steps)
        self._stopped = False
        self._loss: float | None = None
        self._tokens = 0
        self._began = self._step_began = time.monotonic()

    @property
    def goes_on(self) -> bool:
        """Whether another step is to be done."""
        return self.done < self._pause and not self._stopped

    def begin(self) -> None:
        """Go on from the newest checkpoint, chosen by worker 0, and tell the callbacks.

        Raises:
            CheckpointError: none can be used, or it does not fit.
        """
        found = self._checkpoints.newest() if self._world.rank == 0 else None
        self.done = self._world.agree(found.step if found else 0)
        if self.done:
            state, method_state = self._checkpoints.load(self.done, self.sharding.parameters.keys())
            self.sharding.load(state)
            self._hook.load_state(self._skipped.load_state(self._mixing.load_state(self.done, method_state)))
        self._began = time.monotonic()
        for callback in self._callbacks:
            callback.on_start(self.done, self.num_steps)

    def take(self) -> StepBatches:
        """What this worker computes for the next step."""
        world = self._world
        batches = self._mixing.loader.step(self.done, world.rank, world.size, even=self.sharding.lockstep)
        self._dropping.set(self.done)
        self._step_began = time.monotonic()
        return batches

    @property
    def seed(self) -> int:
        """Of the next step's dropout: a pure function of these three, so a resumed run draws as the unbroken one."""
        return (self._spec.seed * 1_000_003 + self.done) * 65_537 + self._world.rank

    def loss_scale(self, num_supervised: int) -> float:
        """What the loss is multiplied by for its backward pass, a power of two, so that nothing is rounded by it.

        In float16 the gradient of a mean over many tokens vanishes below 6e-8; that of their sum does not.
        """
        if self._compute_dtype != torch.float16:
            return 1.0
        return 2.0 ** max(0, num_supervised.bit_length() - 1)

    def learn(self, batches: StepBatches, loss: StepLoss) -> None:
        """Finish the step that `take` began: update unless a number is not finite, evaluate, save, report.

        Args:
            batches: what `take` gave.
            loss: of this worker; its gradients, multiplied by `loss_scale`, are in the parameters.
        """
        metrics, asked = self._update(batches, loss)
        self.done += 1
        draws = self._mixing.observe(self.done, metrics, batches.targets_of)
        if draws:
            metrics |= {f"train/{name}/share": count / sum(draws.values()) for name, count in draws.items()}
        self._loss, self._tokens = metrics["train/loss"], self._tokens + batches.num_tokens
        healthy, every = not self._skipped.too_many, self._spec.evaluate_every
        if healthy and self._evaluate and every and (self.done % every == 0 or self.done == self.num_steps):
            metrics |= self._evaluate()
        pauses = self.done == self._pause or asked
        checkpointed = healthy and (self.done % self._spec.checkpoint_every == 0 or pauses)
        if checkpointed:
            self.save()
        for callback in self._callbacks:
            callback.on_step(StepReport(self.done, self.num_steps, metrics, batches.sample_ids, checkpointed, draws))
        self._stopped = asked or not healthy

    def save(self) -> None:
        """Write a checkpoint of the steps that are done."""
        if state := self.sharding.state():
            self._checkpoints.save(self.done, state, self._hook.state() | self._skipped.state() | self._mixing.state())

    def close(self) -> None:
        """Tell the callbacks that the loop has ended, well or not."""
        for callback in self._callbacks:
            callback.close()

    def result(self) -> TrainResult:
        """How the loop has ended.

        Raises:
            TrainingDiverged: more than `spec.max_skipped_steps` steps were NaN or infinite; none changed the weights.
        """
        self._skipped.check()
        return TrainResult(self.done, self._loss, self._tokens, time.monotonic() - self._began)

    def _update(self, batches: StepBatches, loss: StepLoss) -> tuple[dict[str, float], bool]:
        """Returns the step's metrics, and whether any worker was asked to stop."""
        asked = torch.tensor(float(self._stop()), device=loss.mean.device)
        figures = torch.cat([torch.stack([loss.mean, asked]), loss.by_source])
        loss_value, stopping, *summed = self.sharding.sum_gradients(figures).tolist()
        if (scale := self.loss_scale(batches.num_supervised)) != 1:
            self.sharding.divide_gradients(scale)
        self._hook.before_update()
        rate = learning_rate(self.done, self.num_steps, self._spec)
        norm = self.sharding.update(rate, self._spec.max_grad_norm)
        if math.isfinite(loss_value) and math.isfinite(norm):
            self._hook.after_update(self.done + 1)
        else:
            self._skipped.add(self.done, loss_value, norm, batches.sample_ids)
        self.sharding.clear_gradients()
        metrics = {
            "train/loss": loss_value,
            "train/grad_norm": norm,
            "train/learning_rate": rate,
            "train/tokens": float(batches.num_tokens),
            "train/tokens_per_second": batches.num_tokens / (time.monotonic() - self._step_began),
        }
        # Where there is one source, `train/loss` is all there is to say.
        for name, value, count in zip(self._mixing.names, summed, batches.targets_of, strict=False):
            if count:
                metrics[f"train/{name}/loss"] = value / count
        return metrics | self._skipped.metrics(), stopping > 0
