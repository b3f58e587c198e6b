"""Bases in 4 and 8 bits: the loss near the unquantized one's, the gradients of the same base on the CPU."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from didact.gpu_proof.checks import Check, Outcome, distance
from didact.gpu_proof.numerics import CPU, Pass
from didact.gpu_proof.subjects import random_base, tiny_config
from didact.spec import QuantizationSpec

_KINDS = {
    "4-bit NF4, double quantization": QuantizationSpec(bits=4),
    "4-bit NF4": QuantizationSpec(bits=4, double=False),
    "4-bit FP4": QuantizationSpec(bits=4, type="fp4"),
    "8-bit": QuantizationSpec(bits=8),
}


def checks() -> Iterator[Check]:
    """All of this module."""
    for name, spec in _KINDS.items():
        for dtype in (torch.bfloat16, torch.float16):
            title = f"{name}, {str(dtype).removeprefix('torch.')}"
            yield Check("bases", f"{title}, beside the unquantized base", partial(_near, spec=spec, dtype=dtype))
    for name, spec in _KINDS.items():
        yield Check("bases", f"{name}, gradients beside those of the CPU", partial(_alike, spec=spec))
    yield Check("bases", "4-bit weights are stored in the compute dtype", _storage)


def _near(device: torch.device, spec: QuantizationSpec, dtype: torch.dtype) -> Outcome:
    """Quantizing moves the loss of a random model little, and gradients by a tenth or so."""
    plain = Pass(device, dtype)
    (loss, gradient), (plain_loss, plain_gradient) = replace(plain, quantization=spec).result(), plain.result()
    words = f"gradients {distance(gradient, plain_gradient):.1e} apart"
    return Outcome(abs(loss - plain_loss) / plain_loss, 2e-2, words)


def _alike(device: torch.device, spec: QuantizationSpec) -> Outcome:
    twin = Pass(CPU, torch.bfloat16, quantization=spec)
    return Outcome(distance(replace(twin, device=device).result()[1], twin.result()[1]), 8e-2)


def _storage(device: torch.device) -> Outcome:
    """What FSDP cuts must be of one dtype, so packed bytes are held as numbers of the other weights' dtype."""
    base = random_base(tiny_config(), device, torch.bfloat16, QuantizationSpec(bits=4))
    other = {str(each.dtype) for each in base.parameters()} - {"torch.bfloat16"}
    return Outcome(float(len(other)), 0.0, f"also {sorted(other)}" if other else "bfloat16 throughout")
