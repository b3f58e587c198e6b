"""Sharding strategies over the cards of this machine, beside one worker alone; and a run that is broken off."""

import contextlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from didact.gpu_proof.checks import Check, Outcome, Unavailable, distance, farthest
from didact.gpu_proof.numerics import CPU, LORA
from didact.gpu_proof.subjects import RandomSteps, random_base, tiny_config
from didact.gpu_proof.training import run_steps
from didact.models import attach_adapter, use_packed_attention
from didact.spec import FullSpec, LoraSpec, MethodSpec, QuantizationSpec, ShardingSpec, TrainingSpec
from didact.training import Objective, World
from didact.training.sharding.fully_sharded import FullySharded
from didact.training.sharding.protocol import Sharding
from didact.training.sharding.replicated import Replicated
from didact.training.sharding.zero import Zero

_STEPS = RandomSteps(((40, 17, 60, 5), (30, 30, 9, 12)), accumulate=2)
_NUM_STEPS = 3
_CLASSES: dict[str, Callable[..., Sharding]] = {
    "ddp": Replicated,
    "fsdp": FullySharded,
    "zero1": Zero,
    "zero2": Zero,
    "zero3": Zero,
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What is trained, and how it is cut."""

    strategy: str
    full: bool = False
    offload: bool = False
    four_bits: bool = False
    bfloat16: bool = False

    @property
    def method(self) -> MethodSpec:
        """What is trained."""
        return FullSpec(method="full") if self.full else LORA

    @property
    def name(self) -> str:
        """For a reader."""
        words = ["full" if self.full else "LoRA", self.strategy]
        words += ["offloaded"] * self.offload + ["4-bit base"] * self.four_bits + ["bfloat16"] * self.bfloat16
        return ", ".join(words)


def checks() -> Iterator[Check]:
    """All of this module."""
    trials = [Trial("ddp"), Trial("fsdp", bfloat16=True), Trial("fsdp", four_bits=True)]
    for strategy in ("fsdp", "zero1", "zero2", "zero3"):
        for full in (False, True):
            trials.append(Trial(strategy, full))
            if strategy != "zero1":
                trials.append(Trial(strategy, full, offload=True))
    for trial in trials:
        yield Check("sharding", f"{trial.name}, beside one worker", partial(_beside_one, trial=trial))
    for full in (False, True):
        name = "full finetuning" if full else "LoRA"
        yield Check("resume", f"{name}, broken off and resumed, to the bit", partial(_resumed, full=full))


def _beside_one(device: torch.device, trial: Trial) -> Outcome:
    if trial.strategy.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        raise Unavailable("DeepSpeed is not installed")
    if trial.offload and device.type == "cpu":
        raise Unavailable("without a GPU there is nothing to offload from")
    ranks = torch.cuda.device_count() if device.type == "cuda" else 2
    with tempfile.TemporaryDirectory() as folder:
        found = _in_processes(Path(folder), ranks, device.type, trial)
    wanted = _alone(device.type, Trial("ddp", trial.full, four_bits=trial.four_bits, bfloat16=trial.bfloat16))
    # Gathered in bfloat16, full finetuning rounds its weights for the products; alone it rounds them there too.
    allowed = 2e-2 if trial.bfloat16 or (trial.full and device.type == "cuda") else 1e-3
    return Outcome(farthest(found, wanted), allowed, f"{ranks} rank{'s' if ranks > 1 else ''}")


@cache
def _alone(kind: str, trial: Trial) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        return _in_processes(Path(folder), 1, kind, trial)


def _in_processes(folder: Path, ranks: int, kind: str, trial: Trial) -> list[float]:
    """Losses and gradient norms of the steps, from worker 0."""
    meeting = folder / f"{trial.strategy}-{ranks}"
    mp.spawn(_worker, (ranks, str(meeting), kind, asdict(trial)), nprocs=ranks)
    return json.loads(meeting.with_suffix(".json").read_text())


def _worker(rank: int, ranks: int, meeting: str, kind: str, fields: dict[str, object]) -> None:
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == "cuda" else CPU
    options = {}
    if kind == "cuda":
        torch.cuda.set_device(device)
        options["device_id"] = device
    torch.backends.cuda.matmul.allow_tf32 = False
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=ranks, **options)
    try:
        figures = _steps(device, Trial(**fields), World(rank, ranks))  # type: ignore[arg-type]
        if rank == 0:
            Path(meeting).with_suffix(".json").write_text(json.dumps(figures))
    finally:
        dist.destroy_process_group()


def _steps(device: torch.device, trial: Trial, world: World) -> list[float]:
    dtype = (
        torch.bfloat16 if trial.bfloat16 or trial.four_bits or (trial.full and device.type == "cuda") else torch.float32
    )
    held = torch.float32 if trial.full else dtype
    quantization = QuantizationSpec(bits=4) if trial.four_bits else None
    cut_later = trial.strategy == "fsdp" and quantization is None
    base = random_base(tiny_config(), CPU if cut_later else device, held, quantization, drawn_on=CPU)
    use_packed_attention(base, 96, device)
    model = attach_adapter(base, trial.method, seed=0, base_name="random")
    sharding_spec = ShardingSpec(strategy=trial.strategy, cpu_offload=trial.offload)
    spec = TrainingSpec(steps=_NUM_STEPS, learning_rate=1e-3, sharding=sharding_spec)
    sharding: Sharding = _CLASSES[trial.strategy](model, spec, trial.method, world)
    objective = Objective(sharding.model, dtype, sharding.device)
    figures: list[float] = []
    for step in range(_NUM_STEPS):
        batches = _STEPS.step(step, world.rank, world.size, even=True)
        total = torch.zeros((), device=objective.device)
        for batch in batches.micro_batches:
            part = objective.summed_loss(batch) / batches.num_supervised
            sharding.backward(part)
            total += part.detach()
        loss = sharding.sum_gradients(total.view(1)).item()
        figures += [loss, sharding.update(1e-3, max_norm=1.0)]
        sharding.clear_gradients()
    return figures


def _resumed(device: torch.device, full: bool) -> Outcome:
    """Six steps at once beside three and three, attention adding up its gradients in a fixed order."""
    with tempfile.TemporaryDirectory() as folder, _fixed_order():
        unbroken = _weights(device, full, Path(folder) / "unbroken", None)
        _weights(device, full, Path(folder) / "broken", 3)
        resumed = _weights(device, full, Path(folder) / "broken", None)
    same = sum(torch.equal(a, b) for a, b in zip(unbroken, resumed, strict=True))
    far = max(distance(b, a) for a, b in zip(unbroken, resumed, strict=True))
    return Outcome(far, 0.0, f"{same} of {len(unbroken)} tensors equal to the bit")


@contextlib.contextmanager
def _fixed_order() -> Iterator[None]:
    """Flash attention's backward pass adds with atomics otherwise, so that no two runs are equal."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _weights(device: torch.device, full: bool, checkpoints: Path, stop_after: int | None) -> list[torch.Tensor]:
    method: MethodSpec = FullSpec(method="full") if full else LoraSpec(r=4, dropout=0.1)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    base = random_base(tiny_config(), device, torch.float32 if full else dtype, drawn_on=CPU)
    use_packed_attention(base, 400)
    model = attach_adapter(base, method, seed=0, base_name="random")
    steps = RandomSteps(((300, 17, 160, 5, 64, 64, 64, 128), (30, 380, 9, 12, 100)))
    run_steps(model, steps, 6, dtype, method, checkpoints=checkpoints, stop_after=stop_after)
    return [each.detach().cpu() for each in model.parameters() if each.requires_grad]
