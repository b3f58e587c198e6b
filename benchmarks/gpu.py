"""Speed and memory on one GPU, beside the peers that are installed. Models are random, made in memory.

    PYTHONPATH=platform:. python -m benchmarks.gpu [--sections loss train fused generate]
        [--settings "7B LoRA, short rows"] [--contestants didact compiled trainer packed trl] [--steps 10] [--json FILE]

Training: real tokens a second, arithmetic that the weights need (4 operations a weight and token with an adapter, 6 in
full finetuning; padding and unused logits count nothing) as a share of the card's peak on paper and of what its largest
matrix product reaches, and peak memory beside the estimate. Generation: tokens a second of requests that come at once.
"""

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers.utils import logging as transformers_logging

from benchmarks import gpu_generation, gpu_training
from benchmarks.gpu_training import Measured, Setting, lora
from didact.gpu_proof.__main__ import versions
from didact.gpu_proof.subjects import short_lengths
from didact.spec import FullSpec
from didact.training.head_loss import head_loss

# Dense bfloat16 operations a second on paper, by what the driver calls the card (NVIDIA's data sheets, SXM parts).
PAPER = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12, "4090": 165e12}
SHORT = tuple(tuple(short_lengths(64, seed)) for seed in range(4))
LONG = ((4096, 4096),)
SETTINGS = (
    Setting("7B LoRA, short rows", "7B", SHORT, lora()),
    Setting("7B LoRA, 4k rows", "7B", LONG, lora()),
    Setting("7B LoRA in 4 bits, short rows", "7B", SHORT, lora(), bits=4),
    Setting("7B LoRA in 4 bits, 4k rows", "7B", LONG, lora(), bits=4),
    Setting("1B LoRA, short rows", "1B", SHORT, lora()),
    Setting("1B LoRA, 4k rows", "1B", LONG, lora()),
    Setting("1B LoRA in 4 bits, short rows", "1B", SHORT, lora(), bits=4),
    Setting("1B full, short rows", "1B", SHORT, FullSpec(method="full")),
)
ROWS_OF_TRAINER = {SHORT: 16, LONG: 2}
SECTIONS = ("loss", "train", "fused", "generate")
NUM_TRIALS = 8
CONTESTANTS = ("didact", "compiled", "trainer", "packed", "trl")


def product_rate() -> float:
    """Operations a second of an 8192-wide bfloat16 product on random numbers."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        left @ right
    start.record()
    for _ in range(20):
        left @ right
    end.record()
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (start.elapsed_time(end) / 1000)


def train_table(arguments: argparse.Namespace, reached: float, report: dict[str, Any]) -> None:
    """One line a setting and contestant."""
    paper = next((rate for name, rate in PAPER.items() if name in torch.cuda.get_device_name()), float("nan"))
    device = torch.device("cuda")
    for setting in SETTINGS:
        if arguments.settings and setting.name not in arguments.settings:
            continue
        rows = ROWS_OF_TRAINER[setting.lengths]
        calls: dict[str, Callable[[], Measured]] = {
            "didact": lambda s=setting: gpu_training.didact(s, device, arguments.steps, compiled=False),
            "compiled": lambda s=setting: gpu_training.didact(s, device, arguments.steps, compiled=True),
            "trainer": lambda s=setting, r=rows: gpu_training.trainer(s, device, arguments.steps, rows=r),
            "packed": lambda s=setting, r=rows: gpu_training.trainer(s, device, arguments.steps, rows=r, packed=True),
            "trl": lambda s=setting, r=rows: gpu_training.trainer(s, device, arguments.steps, rows=r, trl=True),
        }
        print(f"{setting.name} (estimate {gpu_training.estimate_gib(setting):.1f} GiB)", flush=True)
        for name in arguments.contestants:
            found = attempt(calls[name])
            if isinstance(found, str):
                print(f"  {name:<9} failed: {found}", flush=True)
                continue
            shares = (
                f"{found.flops_per_second / paper:6.1%} of paper, {found.flops_per_second / reached:6.1%} of reached"
            )
            print(
                f"  {name:<9} {found.tokens_per_second:9,.0f} tokens/s  {shares}  {found.peak_gib:6.2f} GiB  "
                f"loss {found.losses[0]:.3f} to {found.losses[-1]:.3f}  first {found.first_seconds:.0f} s",
                flush=True,
            )
            report["train"].append({"setting": setting.name, "contestant": name, **asdict(found)})
            gpu_training.free_gpu()


def loss_table(report: dict[str, Any]) -> None:
    """Milliseconds and memory of the vocabulary projection with its loss, forward and backward, in each way."""
    for vocabulary, width, positions in ((32_000, 4096, 2700), (128_256, 2048, 2700), (128_256, 4096, 8192)):
        hidden = torch.randn(positions, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        weight = torch.randn(vocabulary, width, device="cuda", dtype=torch.bfloat16) * 0.02
        targets = torch.randint(0, vocabulary, (positions,), device="cuda")
        row: dict[str, Any] = {"vocabulary": vocabulary, "width": width, "positions": positions}
        for name, way in LOSSES.items():
            row[name] = attempt(lambda w=way, h=hidden, m=weight, t=targets: _loss_cost(w, h, m, t))
        print(", ".join(f"{name} {found}" for name, found in row.items()), flush=True)
        report["loss"].append(row)


def _loss_cost(
    way: Callable[..., torch.Tensor], hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> str:
    before, best = torch.cuda.memory_allocated(), float("inf")
    torch.cuda.reset_peak_memory_stats()
    for _ in range(6):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        loss = way(hidden, weight, targets)
        loss.backward()
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end))
        hidden.grad = None
    mean = loss.item() / len(targets)
    return f"{best:.2f} ms {(torch.cuda.max_memory_allocated() - before) / 2**20:.0f} MiB loss {mean:.4f}"


def _all_logits(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy((hidden @ weight.t()).float(), targets, reduction="sum")


def _liger(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight, hidden, targets)


LOSSES = {"all logits": _all_logits, "head_loss": head_loss, "Liger": _liger}


def fused_table(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    """LoRA trials of 8 samples a step, together on one base and one after the other."""
    device, steps = torch.device("cuda"), arguments.steps
    for bits in (None, 4):
        name = f"{arguments.size}, {bits or 16} bits, {NUM_TRIALS} trials"
        setting = Setting(name, arguments.size, tuple(each[:8] for each in SHORT), lora(), bits)
        calls: dict[str, Callable[[], Measured]] = {
            "fused": lambda s=setting: gpu_training.fused_trials(s, device, steps, NUM_TRIALS),
            "one alone": lambda s=setting: gpu_training.didact(s, device, steps, compiled=False),
        }
        for way, call in calls.items():
            found = attempt(call)
            if isinstance(found, str):
                print(f"{name}, {way} failed: {found}", flush=True)
                continue
            rate = f"{found.tokens_per_second:9,.0f} tokens/s"
            print(f"{name}, {way:<9} {rate}  {found.peak_gib:6.2f} GiB  loss {found.losses[-1]:.3f}", flush=True)
            report["fused"].append({"setting": name, "way": way, **asdict(found)})
            gpu_training.free_gpu()


def generate_table(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    """One line a number of rows."""
    device, size, tokens = torch.device("cuda"), arguments.size, arguments.tokens
    for rows in arguments.rows:
        calls: dict[str, Callable[[], float]] = {
            "base": lambda r=rows: gpu_generation.engine(size, device, r, 0, tokens),
            "16 adapters": lambda r=rows: gpu_generation.engine(size, device, r, 16, tokens),
            "transformers": lambda r=rows: gpu_generation.continuous_batching(size, device, r, tokens),
        }
        figures = {name: attempt(call) for name, call in calls.items()}
        words = [
            f"{name} {each:,.0f}" if isinstance(each, float) else f"{name} {each}" for name, each in figures.items()
        ]
        print(f"{size}, {rows:>3} rows: " + ", ".join(words) + " tokens/s", flush=True)
        report["generate"].append({"size": size, "rows": rows, **figures})
    if os.environ.get("DIDACT_VLLM_PYTHON"):
        found = attempt(lambda: gpu_generation.vllm(size, device, arguments.rows, tokens))
        print(f"{size}, engine vllm: {found} tokens/s", flush=True)
        report["vllm"] = found


def attempt(call: Callable[[], Any]) -> Any:
    """Its result, or why there is none; the others are measured anyway."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - told in its place
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    finally:
        gpu_training.free_gpu()


def main() -> None:
    """Measure and print; everything also goes to the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--settings", nargs="+", choices=[setting.name for setting in SETTINGS])
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=CONTESTANTS)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", default="1B", choices=["1B", "7B"], help="of the base in fused and generate")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16, 64, 256])
    parser.add_argument("--tokens", type=int, default=64, help="to generate for each request")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU here: this benchmark measures one")
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    reached = product_rate()
    report: dict[str, Any] = {"card": torch.cuda.get_device_name(), "reached": reached, "versions": versions()}
    report |= {section: [] for section in SECTIONS}
    print(f"{report['card']}, 8192-wide products {reached / 1e12:.0f} TFLOP/s, {report['versions']}", flush=True)
    if "loss" in arguments.sections:
        loss_table(report)
    if "train" in arguments.sections:
        train_table(arguments, reached, report)
    if "fused" in arguments.sections:
        fused_table(arguments, report)
    if "generate" in arguments.sections:
        generate_table(arguments, report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
