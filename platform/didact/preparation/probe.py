"""A few steps of a recipe on this machine: how much memory and time they really take."""

import contextlib
import ctypes
import multiprocessing
import time
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from typing_extensions import override

from didact import env
from didact.devices import is_out_of_memory, this_machine
from didact.errors import OutOfMemory
from didact.models import compute_dtype
from didact.preparation.prepare import PreparedData, TaskTexts, prepare_data
from didact.spec import FinetuneSpec, ShardingSpec
from didact.training.callbacks import Callback, StepReport
from didact.training.checkpoints import Checkpoints
from didact.training.loop import train
from didact.training.trainable import check_devices, resolve_sharing, trainable_model
from didact.training.world import World

_GIB = 2**30
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured."""

    peak_gib: float
    """Memory that base, adapter and steps took at once: on a GPU as allocated, else resident, without the process as
    it was before."""
    tokens_per_second: float
    """Real tokens of the steps after the first, of one worker."""


def probe_recipe(spec: FinetuneSpec, num_steps: int = 2, task_texts: TaskTexts | None = None) -> Probe:
    """Run a few optimizer steps of the recipe as one worker alone would, and keep nothing of them.

    They run in a process of their own, started with the allocator that workers are started with.

    Args:
        spec: the recipe.
        num_steps: steps; the first one is not timed.
        task_texts: as `prepare_data` takes it.

    Raises:
        OutOfMemory: the GPU had no more, or the system ended the process.
        DeviceError: this machine lacks what the recipe needs, such as the GPU of `placement.device: gpu`.
        DidactError: what a worker would raise.
    """
    with contextlib.ExitStack() as stack:
        for name, value in env.for_training().items():
            stack.enter_context(env.setting(name, value))
        pool = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        try:
            return pool.submit(_probe_here, spec, num_steps, task_texts).result()
        except BrokenProcessPool as error:
            raise OutOfMemory("the system ended the probe's process, most likely for want of memory") from error


def _probe_here(spec: FinetuneSpec, num_steps: int, task_texts: TaskTexts | None) -> Probe:
    asked = {"cpu": torch.device("cpu"), "gpu": torch.device("cuda"), "auto": this_machine().device}
    device = asked[spec.placement.device]
    check_devices(spec, device)
    prepared = prepare_data(spec, task_texts=task_texts)
    torch.set_num_threads(spec.placement.cpus_per_worker)
    try:
        return _probe(spec, prepared, num_steps, device)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"the probe ran out of memory: {error}") from error
        raise


def _probe(spec: FinetuneSpec, prepared: PreparedData, num_steps: int, device: torch.device) -> Probe:
    before = _resident_gib("VmRSS")
    model, packing = trainable_model(spec, prepared.num_steps, device)
    shares = resolve_sharing(spec, model, packing, device)
    loader, clock = prepared.loader(spec, packing=packing, share_prefixes=shares), _Clock()
    _start_peak(device)
    train(
        model,
        loader,
        spec.training.model_copy(update={"evaluate_every": None, "sharding": ShardingSpec()}),
        num_steps=num_steps,
        compute_dtype=compute_dtype(spec.model, device),
        checkpoints=_NoCheckpoints(),
        adapter=spec.adapter,
        callbacks=[clock],
        world=World(0, 1),
    )
    peak = torch.cuda.max_memory_allocated() / _GIB if device.type == "cuda" else _resident_gib("VmHWM") - before
    tokens = sum(loader.step(step).num_tokens for step in range(1, num_steps))
    return Probe(peak, tokens / (clock.ends[-1] - clock.ends[0]))


def _start_peak(device: torch.device) -> None:
    """Count the peak from here: what loading needed for a moment is not what training needs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL(None).malloc_trim(0)  # else what loading freed is counted still
    _RESET.write_text("5", encoding="utf-8")


def _resident_gib(field: str) -> float:
    """A size of this process in Linux's words, freed memory given back first."""
    ctypes.CDLL(None).malloc_trim(0)
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**20


class _Clock(Callback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @override
    def on_start(self, start: int, num_steps: int) -> None:
        pass

    @override
    def on_step(self, report: StepReport) -> None:
        self.ends.append(time.monotonic())

    @override
    def close(self) -> None:
        pass


class _NoCheckpoints(Checkpoints):
    """A probe keeps nothing."""

    @override
    def save(self, *state: object) -> None:
        pass

    @override
    def newest(self) -> None:
        return None

    @override
    def load(self, step: int, names: Collection[str]) -> NoReturn:
        raise LookupError(f"a probe has no checkpoint of step {step}")
