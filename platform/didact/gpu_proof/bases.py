"""Bases in 4 and 8 bits: the loss near the unquantized one's, the gradients of the same base on the CPU."""

from collections.abc import Iterator
from functools import partial

import torch

from didact.gpu_proof.checks import Check, Outcome, distance
from didact.gpu_proof.numerics import CPU, LENGTHS, LORA
from didact.gpu_proof.subjects import random_base, random_samples, tiny_config
from didact.models import attach_adapter, use_packed_attention
from didact.spec import QuantizationSpec
from didact.tokens import pack
from didact.training import Objective

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


def _pass(device: torch.device, dtype: torch.dtype, spec: QuantizationSpec | None) -> tuple[float, torch.Tensor]:
    base = random_base(tiny_config(), device, dtype, spec, drawn_on=CPU)
    use_packed_attention(base, max(LENGTHS))
    model = attach_adapter(base, LORA, seed=0, base_name="random")
    parameters = [each for each in model.parameters() if each.requires_grad]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in parameters:
            each.add_((torch.randn(each.shape, generator=generator) * 0.02).to(device))
    batch = pack(random_samples(LENGTHS))
    loss = Objective(model.train(), dtype, device).summed_loss(batch) / batch.num_supervised
    loss.backward()
    return loss.item(), torch.cat([each.grad.float().flatten() for each in parameters])


def _near(device: torch.device, spec: QuantizationSpec, dtype: torch.dtype) -> Outcome:
    """Quantizing moves the loss of a random model little, and gradients by a tenth or so."""
    (loss, gradient), (plain_loss, plain_gradient) = _pass(device, dtype, spec), _pass(device, dtype, None)
    words = f"gradients {distance(gradient, plain_gradient):.1e} apart"
    return Outcome(abs(loss - plain_loss) / plain_loss, 2e-2, words)


def _alike(device: torch.device, spec: QuantizationSpec) -> Outcome:
    (_, gradient), (_, plain) = _pass(device, torch.bfloat16, spec), _pass(CPU, torch.bfloat16, spec)
    return Outcome(distance(gradient, plain), 8e-2)


def _storage(device: torch.device) -> Outcome:
    """What FSDP cuts must be of one dtype, so packed bytes are held as numbers of the other weights' dtype."""
    base = random_base(tiny_config(), device, torch.bfloat16, QuantizationSpec(bits=4))
    other = {str(each.dtype) for each in base.parameters()} - {"torch.bfloat16"}
    return Outcome(float(len(other)), 0.0, f"also {sorted(other)}" if other else "bfloat16 throughout")
