"""The real loop on a tiny recipe, without Ray: one worker, or several as threads."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from didact.preparation import prepare_data
from didact.spec import FinetuneSpec
from didact.training import (
    Callback,
    CheckpointStore,
    StepReport,
    TrainResult,
    World,
    resolve_sharing,
    train,
    trainable_model,
)
from tests.fakes.world import Meeting, ThreadWorld

_LOADING = threading.Lock()  # transformers and the seeds of a model's first weights are not for several threads


@dataclass
class Loop:
    """What a loop did, also when it was broken off."""

    reports: list[StepReport] = field(default_factory=list)
    model: torch.nn.Module | None = None
    result: TrainResult | None = None

    def on_start(self, start: int, num_steps: int) -> None:
        self.start = start

    def on_step(self, report: StepReport) -> None:
        self.reports.append(report)

    def close(self) -> None:
        pass

    @property
    def lineage(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """Step, loss to the bit and sample ids."""
        return [(each.step, each.metrics["train/loss"].hex(), each.sample_ids) for each in self.reports]

    @property
    def done(self) -> int:
        """Steps of the whole run that are done."""
        return self.start + len(self.reports)

    @property
    def losses(self) -> list[float]:
        return [each.metrics["train/loss"] for each in self.reports]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        assert self.model is not None
        return {name: each.detach() for name, each in self.model.named_parameters() if each.requires_grad}


def run_loop(
    spec: FinetuneSpec,
    checkpoints: Path,
    *,
    callbacks: Callable[[torch.nn.Module], Sequence[Callback]] = lambda model: (),
    loop: Loop | None = None,
    world: World | None = None,
    stop: Callable[[], bool] = lambda: False,
    allow_fresh: bool = False,
    measured: bool = False,
) -> Loop:
    """Train on one worker. Give `loop` to see what was done before an error; `measured` has held-out losses told."""
    loop = loop or Loop()
    with _LOADING:
        prepared = prepare_data(spec)
        loop.model, packing = trainable_model(spec, prepared.num_steps, torch.device("cpu"))
        shares = resolve_sharing(spec, loop.model, packing, torch.device("cpu"))

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        from didact.cluster.worker import held_out_losses  # and with it Ray, which few of these tests need

        batch_size = spec.training.micro_batch_size
        return held_out_losses(model, prepared, world or World(), packing=packing, batch_size=batch_size)

    keep = spec.training.keep_checkpoints
    loop.result = train(
        loop.model,
        prepared.loader(spec, packing=packing, share_prefixes=shares),
        spec.training,
        num_steps=prepared.num_steps,
        compute_dtype=torch.float32,
        checkpoints=CheckpointStore(checkpoints, keep=keep, identity="tiny", allow_fresh=allow_fresh),
        adapter=spec.adapter,
        callbacks=[loop, *callbacks(loop.model)],
        evaluate=evaluate if measured else None,
        world=world or World(),
        stop=stop,
    )
    return loop


def run_loops(
    spec: FinetuneSpec,
    checkpoints: Path,
    size: int,
    callbacks: Callable[[torch.nn.Module, int], Sequence[Callback]] = lambda model, rank: (),
    until: int | None = None,
) -> list[Loop]:
    """Train on `size` workers, which are threads. Recipes with dropout draw from a generator that threads share.

    `until` is a step that ends the attempt with a checkpoint, as a drained node does.
    """
    meeting = Meeting(size)
    worlds = [ThreadWorld(rank, size, meeting) for rank in range(size)]
    loops = [Loop() for _ in worlds]
    with ThreadPoolExecutor(size) as threads:
        pending = [
            threads.submit(
                run_loop,
                spec,
                checkpoints,
                loop=loop,
                world=world,
                callbacks=lambda model, rank=world.rank: callbacks(model, rank),
                stop=lambda loop=loop: loop.done + 1 == until,
            )
            for world, loop in zip(worlds, loops, strict=True)
        ]
        return [each.result() for each in pending]
