"""A few steps of a recipe on this machine: how much memory and time they really take."""

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from didact.models import attach_adapter, compute_dtype, load_base, use_packed_attention
from didact.spec import FinetuneSpec
from didact.training.callbacks import StepReport
from didact.training.checkpoints import Checkpoint
from didact.training.loop import train
from didact.training.prepare import PreparedData, resolve_packing
from didact.training.world import World

_GIB = 2**30
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured."""

    peak_gib: float
    """Memory that base, adapter and steps took at once: on a GPU as allocated, else resident, without the process as
    it was before."""
    seconds_per_step: float
    """Of the steps after the first."""
    tokens_per_step: float
    """Real tokens."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of one worker."""
        return self.tokens_per_step / self.seconds_per_step


def probe_recipe(spec: FinetuneSpec, prepared: PreparedData, num_steps: int = 2) -> Probe:
    """Run a few optimizer steps of the recipe as one worker would, and keep nothing of them.

    Args:
        spec: the recipe.
        prepared: its data.
        num_steps: steps; the first one is not timed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = _status_gib("VmRSS")
    held = spec.model.model_copy(update={"dtype": "float32"}) if spec.adapter.trains_base else spec.model
    base = load_base(held, device)
    packing = resolve_packing(spec, base)
    if packing:
        use_packed_attention(base, spec.tokens.max_length)
    model = attach_adapter(
        base,
        spec.adapter,
        seed=spec.training.seed,
        base_name=spec.model.base,
        gradient_checkpointing=spec.training.gradient_checkpointing,
        num_steps=prepared.num_steps,
        unquantized=lambda: load_base(held.model_copy(update={"quantization": None})),
    )
    loader, clock = prepared.loader(spec, packing=packing), _Clock()
    _start_peak(device)
    result = train(
        model,
        loader,
        spec.training.model_copy(update={"evaluate_every": None}),
        num_steps=num_steps,
        compute_dtype=compute_dtype(spec.model, device),
        checkpoints=_NoCheckpoints(),
        adapter=spec.adapter,
        callbacks=[clock],
        world=World(0, 1),
    )
    peak = torch.cuda.max_memory_allocated() / _GIB if device.type == "cuda" else _status_gib("VmHWM") - before
    return Probe(peak, (clock.ends[-1] - clock.ends[0]) / (num_steps - 1), result.tokens / num_steps)


def _start_peak(device: torch.device) -> None:
    """Count the peak from here: what loading needed for a moment is not what training needs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL(None).malloc_trim(0)
    _RESET.write_text("5", encoding="utf-8")


def _status_gib(field: str) -> float:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**20


class _Clock:
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_start(self, start: int, num_steps: int) -> None:
        """Nothing."""

    def on_step(self, report: StepReport) -> None:
        """Note the time."""
        self.ends.append(time.monotonic())

    def close(self) -> None:
        """Nothing."""


class _NoCheckpoints:
    """A probe keeps nothing."""

    def newest(self) -> Checkpoint | None:
        """None."""

    def save(self, *state: object) -> None:
        """Nothing."""
