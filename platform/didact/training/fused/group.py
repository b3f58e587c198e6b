"""Runs on one base in one process, step by step together."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from transformers import PreTrainedModel

from didact.errors import DidactError, SpecError
from didact.models import OwnRandom, SharedBase, Slice, compute_dtype, shares_prefixes, start_from
from didact.spec import FinetuneSpec, LoraSpec
from didact.spec.fusing import fused_differences, why_not_fused
from didact.tokens import Batch, StepBatches, StepLoader
from didact.training.callbacks import Callback
from didact.training.checkpoints import Checkpoints
from didact.training.course import Course, TrainResult
from didact.training.objective import Objective, StepLoss
from didact.training.trainable import base_to_train, unquantized_base
from didact.training.world import World


@dataclass(frozen=True, slots=True)
class FusedTrial:
    """One of the runs, with what `train` would be given for it."""

    name: str
    spec: FinetuneSpec
    loader: StepLoader
    """Gives packed rows."""
    num_steps: int
    checkpoints: Checkpoints
    callbacks: Sequence[Callback] = ()
    evaluate: Callable[[torch.nn.Module], dict[str, float]] | None = None
    """Is given the model with this run's adapter alone."""
    start: Path | None = None
    """Adapter that training begins with."""
    stop: Callable[[], bool] = lambda: False


class FusedTrials:
    """The base, and the runs that are trained on it. Not thread-safe: one thread computes.

    Each optimizer step takes the next step of every run: their micro-batches share forward and backward passes, each
    with its own adapter on its own tokens, and each run then updates, measures, saves and reports as `train` does.
    """

    def __init__(
        self, base: PreTrainedModel, spec: FinetuneSpec, device: torch.device, *, max_tokens: int | None = None
    ) -> None:
        """
        Args:
            base: as `base_to_train` gives it for `spec`; rows are packed for it.
            spec: what all runs have in common is as here.
            device: where the base lies and computes.
            max_tokens: most tokens of a shared pass, which bounds its memory; a micro-batch alone may have more. None
                lets every run take part in every pass.
        """
        recomputes = spec.training.gradient_checkpointing
        if recomputes:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            base.enable_input_require_grads()
        self._spec, self._base, self._max_tokens = spec, base, max_tokens
        self.shares_prefixes = shares_prefixes(base, device)
        """Whether rows of a run that drops nothing may hold first tokens that its samples have in common once."""
        self._shared = SharedBase(base, recomputes=recomputes)
        self._compute_dtype = compute_dtype(spec.model, device)
        self._objective = Objective(base, self._compute_dtype, device)
        self._courses: dict[str, Course] = {}
        self.failed: dict[str, DidactError] = {}
        """Runs that an error of their own has ended, until they leave."""

    @classmethod
    def on(cls, spec: FinetuneSpec, device: torch.device, *, max_tokens: int | None = None) -> "FusedTrials":
        """Load a recipe's base for runs like it; none has joined yet.

        Raises:
            SpecError: a recipe like this cannot be trained together with others.
            ModelError: the base does not fit the recipe, or packed rows do not fit the base.
        """
        _refuse(spec.name, why_not_fused(spec))
        base, packing = base_to_train(spec, device)
        if not packing:
            reason = f"tokens.packing: samples of one row would mix in {type(base).__name__}, and trials share rows"
            raise SpecError(f"{spec.name} cannot be fused: {reason}")
        return cls(base, spec, device, max_tokens=max_tokens)

    def join(self, trial: FusedTrial) -> None:
        """Take part from the next step on, where the newest checkpoint of the run leads on.

        Raises:
            SpecError: the recipe differs in what all runs must have in common, or cannot be fused at all.
            ModelError: the adapter does not fit the base.
            CheckpointError: no checkpoint of the run can be used.
        """
        spec, name = trial.spec, trial.name
        _refuse(name, (*why_not_fused(spec), *fused_differences(self._spec, spec)))
        assert isinstance(spec.adapter, LoraSpec)
        self._shared.attach(
            name,
            spec.adapter,
            seed=spec.training.seed,
            base_name=spec.model.base,
            unquantized=lambda: unquantized_base(spec),
        )
        try:
            self._courses[name] = self._begun(trial)
        except BaseException:
            self._shared.drop(name)
            raise

    def leave(self, name: str) -> None:
        """Forget a run and its adapter; what it has saved stays."""
        self.failed.pop(name, None)
        self._courses.pop(name).close()
        self._shared.drop(name)

    @property
    def going(self) -> tuple[str, ...]:
        """Runs that have steps left."""
        return tuple(name for name, each in self._courses.items() if each.goes_on and name not in self.failed)

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[torch.nn.Module]:
        """The model with one run's adapter on the base, for measuring and saving; no step may be done inside."""
        with self._shared.alone(name) as model:
            yield model

    def result(self, name: str) -> TrainResult:
        """How a run has ended, or where it stands.

        Raises:
            DidactError: the error of its own that has ended it.
        """
        if name in self.failed:
            raise self.failed[name]
        return self._courses[name].result()

    def step(self, names: Sequence[str] | None = None) -> None:
        """Do the next optimizer step of each run that has one; an error of one ends that one alone.

        Args:
            names: runs that take part; default all.
        """
        taken: dict[str, StepBatches] = {}
        for name in self.going if names is None else [name for name in names if name in self.going]:
            with self._own_errors(name):
                taken[name] = self._courses[name].take()
        if not taken:
            return
        losses = self._add_gradients(taken)
        if not self._is_finite(losses):  # of whom, is known where they are computed apart
            for name in taken:
                self._courses[name].sharding.clear_gradients()
            losses = self._add_gradients(taken, apart=True)
        for name, batches in taken.items():
            with self._own_errors(name):
                self._courses[name].learn(batches, losses[name])
                if not self._courses[name].goes_on:
                    self._courses[name].result()

    def run(self) -> dict[str, TrainResult]:
        """Train until no run has steps left; the results of those that no error has ended."""
        while self.going:
            self.step()
        return {name: each.result() for name, each in self._courses.items() if name not in self.failed}

    def _begun(self, trial: FusedTrial) -> Course:
        spec, evaluate = trial.spec, trial.evaluate

        def measured() -> dict[str, float]:
            assert evaluate is not None
            with self._shared.alone(trial.name) as model:
                return evaluate(model)

        with self._shared.alone(trial.name) as model:
            if trial.start is not None:
                start_from(model, trial.start)
            course = Course(
                model,
                trial.loader,
                spec.training,
                num_steps=trial.num_steps,
                compute_dtype=self._compute_dtype,
                checkpoints=trial.checkpoints,
                adapter=spec.adapter,
                callbacks=trial.callbacks,
                evaluate=measured if evaluate else None,
                world=World(),
                stop=trial.stop,
            )
        try:
            course.begin()
        except BaseException:
            course.close()
            raise
        return course

    def _is_finite(self, losses: Mapping[str, StepLoss]) -> bool:
        """Whether all losses and gradients are."""
        gradients = [
            each.grad
            for name in losses
            for each in self._courses[name].sharding.parameters.values()
            if each.grad is not None
        ]
        norms = torch._foreach_norm(gradients)
        return bool(
            torch.stack([*(each.mean for each in losses.values()), *(each.float() for each in norms)]).isfinite().all()
        )

    def _add_gradients(self, taken: Mapping[str, StepBatches], *, apart: bool = False) -> dict[str, StepLoss]:
        """Add the gradients of a step of each run; returns their losses."""
        device = self._objective.device
        random = {name: OwnRandom(device, self._courses[name].seed) for name in taken}
        losses = {name: torch.zeros((), device=device) for name in taken}
        of_targets: dict[str, list[torch.Tensor]] = {name: [] for name in taken}
        self._base.train()
        for row in shared_rows({name: each.micro_batches for name, each in taken.items()}, self._max_tokens):
            counts = [taken[name].num_supervised for name, _ in row]
            scales = [self._courses[name].loss_scale(count) for (name, _), count in zip(row, counts, strict=True)]
            with self._shared.slices(
                [Slice(name, batch.num_positions, random[name]) for name, batch in row], apart=apart
            ):
                found = self._objective.losses_of([batch for _, batch in row])
                parts = torch.stack([each.summed for each in found]) / torch.tensor(counts, device=device)
                (parts * torch.tensor(scales, device=device)).sum().backward()
            for (name, _), part, each in zip(row, parts.detach(), found, strict=True):
                losses[name] += part
                of_targets[name].append(each.of_targets)
        return {name: StepLoss.of(loss, taken[name], of_targets[name]) for name, loss in losses.items()}

    @contextlib.contextmanager
    def _own_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except DidactError as error:
            self.failed[name] = error


def shared_rows(
    micro_batches: Mapping[str, Sequence[Batch]], max_tokens: int | None
) -> Iterator[list[tuple[str, Batch]]]:
    """Which micro-batches share a pass: the first of each run, then the second of each, and so on.

    Args:
        micro_batches: of each run, in order. No two of one run are in one row, so that dropout is drawn as it would be
            alone.
        max_tokens: of a row, unless one micro-batch has more; None for no limit.
    """
    for batches in zip_longest(*micro_batches.values()):
        row: list[tuple[str, Batch]] = []
        for name, batch in zip(micro_batches, batches, strict=True):
            if batch is None:
                continue
            tokens = sum(each.num_positions for _, each in row) + batch.num_positions
            if row and max_tokens is not None and tokens > max_tokens:
                yield row
                row = []
            row.append((name, batch))
        if row:
            yield row


def _refuse(name: str, reasons: Sequence[str]) -> None:
    if reasons:
        raise SpecError(f"{name} cannot be fused with other trials:\n" + "\n".join(f"  - {each}" for each in reasons))
