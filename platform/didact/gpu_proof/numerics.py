"""Loss and gradients in every number format, and each fast path beside the plain one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch._dynamo.utils import counters

from didact.devices import this_machine
from didact.gpu_proof.checks import Check, Outcome, Unavailable, distance
from didact.gpu_proof.subjects import FAMILIES, random_base, random_samples, tiny_config
from didact.models import attach_adapter, compile_blocks, use_packed_attention
from didact.spec import FullSpec, LoraSpec, MethodSpec, QuantizationSpec
from didact.tokens import Batch, pack, pad
from didact.training import Objective

LENGTHS = (3, 170, 40, 9, 128, 65)
LORA = LoraSpec(r=8, target_modules="all-linear")
CPU = torch.device("cpu")
# What rounding of the products does to a two-layer model's gradients, with a margin of three.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 8e-3}


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass of a fresh model."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    family: str = "llama"
    method: MethodSpec = LORA
    packed: bool = True
    per_sample: bool = True
    """Attention sample by sample, not by a dense mask."""
    head: bool = True
    """The loss straight from hidden states, where that may be."""
    recompute: bool = False
    compiled: bool = False
    quantization: QuantizationSpec | None = None

    def result(self) -> tuple[float, torch.Tensor]:
        """Mean loss, and all gradients in one row."""
        objective, parameters = self.objective()
        batch = self.batch(LENGTHS)
        loss = objective.summed_loss(batch) / batch.num_supervised
        loss.backward()
        return loss.item(), torch.cat([each.grad.float().flatten() for each in parameters if each.grad is not None])

    def batch(self, lengths: tuple[int, ...]) -> Batch:
        """Random samples of these lengths."""
        samples = random_samples(lengths)
        return pack(samples) if self.packed else pad(samples, 0)

    def objective(self) -> tuple[Objective, list[torch.nn.Parameter]]:
        """The loss and what is trained; weights are drawn on the CPU, so that they are the same everywhere."""
        held = torch.float32 if self.method.trains_base else self.dtype
        base = random_base(tiny_config(self.family), self.device, held, self.quantization, drawn_on=CPU)
        if self.packed and self.per_sample:
            use_packed_attention(base, max(LENGTHS))
        model = attach_adapter(
            base, self.method, seed=0, base_name="random", gradient_checkpointing=self.recompute, num_steps=10
        )
        parameters = [each for each in model.parameters() if each.requires_grad]
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # at its start LoRA's second matrix is zero, and so is the first one's gradient
            for each in parameters:
                each.add_((torch.randn(each.shape, generator=generator) * 0.02).to(each.device, each.dtype))
        if self.compiled:
            compile_blocks(model)
        objective = Objective(model.train(), self.dtype, self.device)
        if not self.head:
            objective._head = None
        return objective, parameters


def beside(found: Pass, twin: Pass) -> Outcome:
    """The farther of loss and gradient."""
    (loss, gradient), (plain_loss, plain_gradient) = found.result(), twin.result()
    far = distance(gradient, plain_gradient)
    words = f"loss {loss:.4f} beside {plain_loss:.4f}"
    off = abs(loss - plain_loss) / plain_loss
    return Outcome(max(far, off) if far == far else far, TOLERANCES[found.dtype], words)


def checks() -> Iterator[Check]:
    """All of this module."""
    plain = Pass(CPU, packed=False, per_sample=False, head=False)
    full = replace(plain, method=FullSpec(method="full"))
    for dtype in TOLERANCES:
        name, found = str(dtype).removeprefix("torch."), Pass(CPU, dtype)
        yield _check("numbers", f"LoRA, {name}, packed", found, plain)
        yield _check("numbers", f"LoRA, {name}, padded", replace(found, packed=False), plain)
        yield _check("numbers", f"full finetuning, {name}, packed", replace(found, method=full.method), full)
        yield _check_alike("loss", f"from hidden states, {name}, beside all logits", found, replace(found, head=False))
        recomputed = replace(found, recompute=True)
        yield _check_alike("recompute", f"activation checkpointing, {name}, beside none", recomputed, found)
        compiled = replace(found, compiled=True)
        yield _check_alike("compile", f"compiled blocks, {name}, beside plain ones", compiled, found)
    yield Check("compile", "compilations for rows of eight lengths", _recompilations)
    for family in FAMILIES:
        for dtype in (torch.float32, torch.bfloat16):
            name = f"packed rows of {family}, {str(dtype).removeprefix('torch.')}, beside padded ones"
            yield _check("attention", name, Pass(CPU, dtype, family), replace(plain, family=family))
    yield Check("attention", "no mask of length x length for a packed row", _no_dense_mask)


def _check(group: str, name: str, found: Pass, twin: Pass) -> Check:
    """The first pass on the device, beside the second on the CPU."""
    return Check(group, name, partial(_compare, found=found, twin=twin, move_twin=False))


def _check_alike(group: str, name: str, found: Pass, twin: Pass) -> Check:
    """Both passes on the device."""
    return Check(group, name, partial(_compare, found=found, twin=twin, move_twin=True))


def _compare(device: torch.device, found: Pass, twin: Pass, move_twin: bool) -> Outcome:
    gpu = this_machine().gpu(device)
    if found.dtype == torch.bfloat16 and gpu and not gpu.bfloat16:
        raise Unavailable("the card does not compute in bfloat16")
    return beside(replace(found, device=device), replace(twin, device=device) if move_twin else twin)


def _recompilations(device: torch.device) -> Outcome:
    """Graphs that torch.compile makes of the blocks while rows of eight lengths go through them."""
    torch._dynamo.reset()
    counters.clear()
    trial = Pass(device, torch.bfloat16 if device.type == "cuda" else torch.float32, compiled=True)
    objective, _ = trial.objective()
    graphs = []
    for count in range(1, 9):
        objective.summed_loss(trial.batch((20 + 7 * count,) * count + (31,))).backward()
        graphs.append(counters["stats"]["unique_graphs"])
    breaks = sum(counters["graph_break"].values())
    words = f"{graphs[-1]} graphs, {graphs[0]} of them by the first row, {breaks} graph breaks"
    return Outcome(float(graphs[-1] - graphs[2]), 0.0, words)


def _no_dense_mask(device: torch.device) -> Outcome:
    """Bytes allocated for a long packed row, over those of its hidden states; a mask would grow with the square."""
    if device.type != "cuda":
        raise Unavailable("counted by the card's allocator")
    trial = Pass(device, torch.bfloat16)
    objective, _ = trial.objective()
    peaks = []
    for count in (8, 64):
        batch = pack(random_samples([256] * count))
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        objective.summed_loss(batch).backward()
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
    growth = peaks[1] / peaks[0]
    return Outcome(
        growth, 9.0, f"{peaks[1] / 2**20:.0f} MiB for {64 * 256:,} tokens, {growth:.1f} x those of an eighth"
    )
