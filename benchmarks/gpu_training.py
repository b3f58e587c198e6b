"""Contestants of `benchmarks/gpu.py` in training: our loop, transformers.Trainer + PEFT, and TRL, on random models."""

import gc
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from didact.gpu_proof.fused import fused_spec
from didact.gpu_proof.subjects import RandomSteps, large_config, random_base
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import attach_adapter, compile_blocks, use_packed_attention
from didact.models.footprint import Load, StateSharding, demand_of
from didact.spec import LoraSpec, MethodSpec, ModelSpec, QuantizationSpec, TrainingSpec
from didact.tokens import StepBatches
from didact.training import StepReport, train
from didact.training.fused import FusedTrial, FusedTrials

_GIB = 2**30
WARM = 2
"""Steps before the clock starts; with compiling they take most of the time."""


@dataclass(frozen=True)
class Setting:
    """What is trained on what."""

    name: str
    size: str
    lengths: tuple[tuple[int, ...], ...]
    """Samples of each micro-batch; one a step."""
    method: MethodSpec
    bits: int | None = None

    @property
    def quantization(self) -> QuantizationSpec | None:
        """Of the base."""
        return QuantizationSpec(bits=self.bits) if self.bits else None

    def steps(self) -> RandomSteps:
        """The rows."""
        return RandomSteps(self.lengths, large_config(self.size).vocab_size)

    def model(self, device: torch.device) -> tuple[Any, torch.nn.Module]:
        """A base on the device, and the same with the method on it."""
        held = torch.float32 if self.method.trains_base else torch.bfloat16
        base = random_base(large_config(self.size), device, held, self.quantization)
        return base, attach_adapter(base, self.method, seed=0, base_name="random").to(device)

    def flops(self, batches: StepBatches) -> float:
        """What a step needs at least, by the weights: no padding, no unused logits, attention left out."""
        config = large_config(self.size)
        key_share = config.num_key_value_heads / config.num_attention_heads
        attention = config.hidden_size**2 * (2 + 2 * key_share)
        body = config.num_hidden_layers * (attention + 3 * config.hidden_size * config.intermediate_size)
        head = config.vocab_size * config.hidden_size
        each = 6 if self.method.trains_base else 4
        return each * (body * batches.num_tokens + head * batches.num_supervised)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of the steps after the warm ones, without the last one."""

    tokens_per_second: float
    flops_per_second: float
    peak_gib: float
    losses: tuple[float, ...]
    first_seconds: float
    """Until the warm steps were done, compiling included."""


class _Clock:
    def __init__(self) -> None:
        self.ends = [time.monotonic()]
        self.losses: list[float] = []

    def on_start(self, start: int, num_steps: int) -> None:
        torch.cuda.synchronize()
        self.ends = [time.monotonic()]

    def on_step(self, report: StepReport) -> None:
        torch.cuda.synchronize()
        self.ends.append(time.monotonic())
        self.losses.append(report.metrics["train/loss"])

    def close(self) -> None:
        """Nothing is open."""


class _NoCheckpoints:
    def newest(self) -> None:
        return None

    def save(self, *state: object) -> None:
        """Kept nowhere."""


def didact(setting: Setting, device: torch.device, num_steps: int, *, compiled: bool) -> Measured:
    """Our loop."""
    base, model = setting.model(device)
    use_packed_attention(base, max(max(each) for each in setting.lengths))
    if compiled:
        torch._dynamo.reset()
        compile_blocks(model)
    steps, clock = setting.steps(), _Clock()
    for step in range(num_steps):
        steps.step(step)  # made before the clock runs, as a token cache has them
    spec = TrainingSpec(steps=num_steps, learning_rate=1e-4, schedule="constant", warmup_share=0.0)
    torch.cuda.reset_peak_memory_stats()
    train(
        model,
        steps,  # type: ignore[arg-type]
        spec,
        num_steps=num_steps,
        compute_dtype=torch.bfloat16,
        checkpoints=_NoCheckpoints(),  # type: ignore[arg-type]
        adapter=setting.method,
        callbacks=[clock],
    )
    return _measured(setting, clock.ends, clock.losses, num_steps)


def fused_trials(setting: Setting, device: torch.device, num_steps: int, count: int) -> Measured:
    """LoRA trials of ranks 4 to 32 trained together on one base, each on the rows of `setting`; figures of all of them.

    Args:
        setting: the base, the rows of each trial, and how the base is quantized.
        device: the GPU.
        num_steps: optimizer steps of each trial.
        count: how many there are.
    """
    specs = [
        fused_spec(f"trial-{number}", (4, 8, 16, 32)[number % 4], 1e-4, num_steps, torch.bfloat16, setting.bits)
        for number in range(count)
    ]
    base = random_base(large_config(setting.size), device, torch.bfloat16, setting.quantization)
    use_packed_attention(base, max(max(each) for each in setting.lengths))
    rows = setting.steps()
    for step in range(num_steps):
        rows.step(step)
    clocks = [_Clock() for _ in specs]
    torch.cuda.reset_peak_memory_stats()
    group = FusedTrials(base, specs[0], device)
    kept: Any = _NoCheckpoints()
    loader: Any = rows
    for spec, clock in zip(specs, clocks, strict=True):
        group.join(FusedTrial(spec.name, spec, loader, num_steps, kept, [clock]))
    group.run()
    found = _measured(setting, clocks[-1].ends, clocks[-1].losses, num_steps)
    return replace(
        found,
        tokens_per_second=found.tokens_per_second * count,
        flops_per_second=found.flops_per_second * count,
    )


def trainer(
    setting: Setting, device: torch.device, num_steps: int, *, rows: int, trl: bool = False, packed: bool = False
) -> Measured:
    """transformers.Trainer with PEFT's model, as its documentation shows it, or TRL's SFTTrainer.

    Args:
        setting: the run.
        device: the GPU.
        num_steps: optimizer steps.
        rows: of a forward pass; the rest of a step is accumulated.
        trl: SFTTrainer, without its activation checkpointing.
        packed: the rows of a pass one behind the other (`DataCollatorWithFlattening`), which transformers keeps apart
            with a dense mask where flash_attn is not installed.
    """
    from transformers import PrinterCallback, TrainerCallback

    _, model = setting.model(device)
    steps, clock = setting.steps(), _Clock()
    samples = [sample for step in range(num_steps) for sample in _rows(steps.step(step))]
    count = len(samples) // num_steps

    class Ticks(TrainerCallback):
        def on_train_begin(self, *args: object, **kwargs: object) -> None:
            clock.on_start(0, num_steps)

        def on_step_end(self, *args: object, **kwargs: object) -> None:
            torch.cuda.synchronize()
            clock.ends.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": num_steps,
            "per_device_train_batch_size": min(rows, count),
            "gradient_accumulation_steps": max(1, count // rows),
            "learning_rate": 1e-4,
            "lr_scheduler_type": "constant",
            "bf16": True,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "logging_steps": 1,
        }
        loop = _trl_loop(model, options, samples) if trl else _trainer_loop(model, options, samples, packed=packed)
        loop.add_callback(Ticks())
        loop.remove_callback(PrinterCallback)
        torch.cuda.reset_peak_memory_stats()
        loop.train()
        losses = [row["loss"] for row in loop.state.log_history if "loss" in row]
    return _measured(setting, clock.ends, losses, num_steps)


def _trl_loop(model: Any, options: dict[str, Any], samples: list[Any]) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(**options, max_length=None, gradient_checkpointing=False, completion_only_loss=True)
    rows = [
        {"input_ids": each["input_ids"], "completion_mask": [int(label >= 0) for label in each["labels"]]}
        for each in samples
    ]
    return SFTTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=byte_tokenizer())


def _trainer_loop(model: Any, options: dict[str, Any], samples: list[Any], *, packed: bool) -> Any:
    from transformers import DataCollatorForSeq2Seq, DataCollatorWithFlattening, Trainer, TrainingArguments

    model.config.use_cache = False  # with a cache, transformers does not look for packed rows
    collator: Any = DataCollatorForSeq2Seq(byte_tokenizer(), padding=True, label_pad_token_id=-100)
    if packed:
        collator = DataCollatorWithFlattening()
    return Trainer(model, TrainingArguments(**options), data_collator=collator, train_dataset=samples)


def estimate_gib(setting: Setting) -> float:
    """What the product's estimate says for our loop, without its allowance for context and fragments."""
    lengths = setting.lengths[0]
    load = Load(sum(lengths), round(sum(lengths) / len(lengths)), 1 / 3, on_cpu=False)
    spec = ModelSpec(dtype="bfloat16", quantization=setting.quantization)
    footprint = demand_of(large_config(setting.size), spec, setting.method, load, 10).footprint(StateSharding())
    return footprint.total_gib - footprint.overhead_gib


def free_gpu() -> None:
    """Let go of the last contestant."""
    gc.collect()
    torch.cuda.empty_cache()


def _measured(setting: Setting, ends: Sequence[float], losses: Sequence[float], num_steps: int) -> Measured:
    steps = setting.steps()
    counted = [steps.step(step) for step in range(WARM, num_steps - 1)]  # after the last one states are gathered
    seconds = ends[num_steps - 1] - ends[WARM]
    return Measured(
        tokens_per_second=sum(each.num_tokens for each in counted) / seconds,
        flops_per_second=sum(setting.flops(each) for each in counted) / seconds,
        peak_gib=torch.cuda.max_memory_allocated() / _GIB,
        losses=tuple(losses),
        first_seconds=ends[WARM] - ends[0],
    )


def _rows(batches: StepBatches) -> list[dict[str, list[int]]]:
    """A step's packed samples apart, each with its learned tokens as labels."""
    rows = []
    for batch in batches.micro_batches:
        starts = [*torch.nonzero(batch.position_ids[0] == 0).flatten().tolist(), batch.num_tokens]
        for start, end in itertools.pairwise(starts):
            ids, targets = batch.input_ids[0, start:end], batch.targets[0, start:end]
            labels = torch.cat([torch.tensor([-100]), targets[:-1]])
            rows.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    return rows


def lora(rank: int = 16) -> LoraSpec:
    """On all linear layers, without dropout, so that contestants compute the same."""
    return LoraSpec(r=rank, alpha=2 * rank, dropout=0.0, target_modules="all-linear")
