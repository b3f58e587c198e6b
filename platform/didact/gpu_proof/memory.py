"""The memory estimate beside what the card's allocator says was held at the peak of a step."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from didact.gpu_proof.checks import Check, Outcome, Unavailable
from didact.gpu_proof.subjects import RandomSteps, large_config, random_base
from didact.gpu_proof.training import run_steps
from didact.models import attach_adapter, use_packed_attention
from didact.models.footprint import Load, StateSharding, demand_of
from didact.spec import FullSpec, LoraSpec, MethodSpec, ModelSpec, QuantizationSpec

_GIB = 2**30
_NEEDED_GIB = 30


@dataclass(frozen=True, slots=True)
class Setting:
    """One run whose memory is estimated and measured."""

    name: str
    lengths: tuple[int, ...]
    method: MethodSpec
    quantization: QuantizationSpec | None = None
    recompute: bool = False
    packed: bool = True


SETTINGS = (
    Setting("1B, LoRA on q and v, one row of 4k", (4096,), LoraSpec(r=16, target_modules=("q_proj", "v_proj"))),
    Setting("1B, LoRA on all layers, one row of 4k", (4096,), LoraSpec(r=16, target_modules="all-linear")),
    Setting("1B, LoRA on all layers, 64 short samples", (128,) * 64, LoraSpec(r=16, target_modules="all-linear")),
    Setting(
        "1B, LoRA on all layers, 8 padded rows",
        (256,) * 8,
        LoraSpec(r=16, target_modules="all-linear"),
        packed=False,
    ),
    Setting(
        "1B, LoRA on all layers, recomputed",
        (4096,) * 2,
        LoraSpec(r=16, target_modules="all-linear"),
        recompute=True,
    ),
    Setting(
        "1B in 4 bits, LoRA on all layers",
        (128,) * 64,
        LoraSpec(r=16, target_modules="all-linear"),
        QuantizationSpec(bits=4),
    ),
    Setting("1B, full finetuning, recomputed", (128,) * 32, FullSpec(method="full"), recompute=True),
)


def checks() -> Iterator[Check]:
    """All of this module."""
    for setting in SETTINGS:
        yield Check("memory", setting.name, partial(estimate_beside_peak, setting=setting))


def estimate_beside_peak(device: torch.device, setting: Setting) -> Outcome:
    """How far the estimate is from the card's figure, as a share of it."""
    if device.type != "cuda":
        raise Unavailable("measured by the card's allocator")
    room = torch.cuda.mem_get_info(device)[0] / _GIB
    if room < _NEEDED_GIB:
        raise Unavailable(f"{room:.0f} GiB of the card are free; {_NEEDED_GIB} are needed")
    estimated, measured = _estimate(setting), _peak(device, setting)
    words = f"estimated {estimated:.2f} GiB, allocated {measured:.2f} GiB"
    return Outcome(abs(estimated / measured - 1), 0.10, words)


def _estimate(setting: Setting) -> float:
    tokens = sum(setting.lengths)
    load = Load(
        tokens,
        max(setting.lengths),
        1 / 3,
        recompute=setting.recompute,
        packed=setting.packed,
        on_cpu=False,
    )
    model = ModelSpec(dtype="bfloat16", quantization=setting.quantization)
    footprint = demand_of(large_config("1B"), model, setting.method, load, 2).footprint(StateSharding())
    return footprint.total_gib - footprint.overhead_gib


def _peak(device: torch.device, setting: Setting) -> float:
    held = torch.float32 if setting.method.trains_base else torch.bfloat16
    before = torch.cuda.memory_allocated(device)
    base = random_base(large_config("1B"), device, held, setting.quantization)
    if setting.packed:
        use_packed_attention(base, max(setting.lengths))
    model = attach_adapter(
        base, setting.method, seed=0, base_name="random", gradient_checkpointing=setting.recompute
    ).to(device)
    torch.cuda.reset_peak_memory_stats(device)
    steps = RandomSteps((setting.lengths,), large_config("1B").vocab_size, packing=setting.packed)
    run_steps(model, steps, 3, torch.bfloat16, setting.method)
    return (torch.cuda.max_memory_allocated(device) - before) / _GIB
