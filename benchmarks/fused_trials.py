"""Eight LoRA trials trained together on one 4-bit base, beside the same trials one after the other.

    PYTHONPATH=platform python benchmarks/fused_trials.py [--rounds 2] [--max-tokens 4096] [--dropout 0.05] [--large]

The bundled base, or with `--large` random weights of the shape of Llama 3.2 1B (a file of 2.5 GB in the folder for
temporary ones), trials of ranks 4 to 32 with their own rates and seeds, the same token ids in both ways, one thread.
Tokens a second, and a CPU second, of the optimizer steps alone, best of the rounds, which alternate; and what a
process of its own for each way had at most in memory beyond the libraries. "Side by side" is eight processes like that
of a trial of rank 16, which is what trials take that run at once. A pass of 1,024 tokens holds about half of the
trials; more tokens are a little faster and take more memory. The largest relative difference of any step's loss says
that both ways did the same.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from didact.gpu_proof.subjects import RandomSteps, short_lengths
from didact.models import compute_dtype
from didact.spec import FinetuneSpec, validate
from didact.training import CheckpointStore, StepReport, World, train, trainable_model
from didact.training.fused import FusedTrial, FusedTrials

CPU = torch.device("cpu")


class Losses:
    """Keeps a run's losses, and what it learned from in which time."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.tokens = self.seconds = self.cpu_seconds = 0.0

    def on_start(self, start: int, num_steps: int) -> None:
        """Nothing is to be done."""

    def on_step(self, report: StepReport) -> None:
        """Keep the loss."""
        self.losses.append(report.metrics["train/loss"])
        self.tokens += report.metrics["train/tokens"]

    def close(self) -> None:
        """Nothing is to be done."""


def recipe(number: int, asked: argparse.Namespace) -> FinetuneSpec:
    """Of one trial."""
    values: dict[str, Any] = {
        "name": f"trial-{number}",
        "model": {
            **({"base": asked.base} if asked.base else {}),
            "dtype": asked.dtype,
            "quantization": {"bits": asked.bits} if asked.bits < 16 else None,
        },
        "adapter": {"r": (4, 8, 16, 32)[number % 4], "dropout": asked.dropout},
        "data": {"sources": [{"name": "none", "path": "none.jsonl"}]},
        "training": {
            "steps": asked.steps,
            "learning_rate": 1e-4 * (1 + number),
            "seed": number,
            "global_batch_size": asked.samples,
            "micro_batch_size": asked.samples,
            "checkpoint_every": 10_000,
        },
        "placement": {"num_workers": 1},
    }
    spec: FinetuneSpec = validate(FinetuneSpec, values, "benchmark")
    return spec


def write_large(folder: Path) -> None:
    """A base of the shape of Llama 3.2 1B with random weights."""
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    grouped = {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True, "head_dim": 64}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**sizes, **grouped), dtype=torch.bfloat16).save_pretrained(folder)


def loader(spec: FinetuneSpec) -> Any:
    """Random rows, of other lengths for each trial, about 60 tokens in the mean."""
    lengths = short_lengths(spec.training.global_batch_size, spec.training.seed)
    return RandomSteps((tuple(max(8, length // 2) for length in lengths),))


def memory() -> float:
    """MiB that this program had at most; what `resource` says begins with what the process had that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def alone(spec: FinetuneSpec, checkpoints: Path) -> Losses:
    """One trial as `didact train` runs it."""
    model, _ = trainable_model(spec, 1, CPU)
    kept = Losses()
    began, cpu_began = time.monotonic(), time.process_time()
    train(
        model,
        loader(spec),
        spec.training,
        num_steps=spec.training.steps or 0,
        compute_dtype=compute_dtype(spec.model, CPU),
        checkpoints=CheckpointStore(checkpoints, keep=2, identity=spec.name),
        adapter=spec.adapter,
        callbacks=[kept],
        world=World(),
    )
    kept.seconds, kept.cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    return kept


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own found out about one way."""
    torch.set_num_threads(1)
    specs = [recipe(number, asked) for number in range(asked.trials)]
    before = memory()
    with TemporaryDirectory() as folder:
        if asked.way == "fused":
            kept = {spec.name: Losses() for spec in specs}
            group = FusedTrials.on(specs[0], CPU, max_tokens=asked.max_tokens)
            for spec in specs:
                store = CheckpointStore(Path(folder) / spec.name, keep=2, identity=spec.name)
                group.join(FusedTrial(spec.name, spec, loader(spec), asked.steps, store, [kept[spec.name]]))
            began, cpu_began = time.monotonic(), time.process_time()
            group.run()
            seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
        else:
            chosen = specs if asked.way == "alone" else specs[2:3]
            kept = {spec.name: alone(spec, Path(folder) / spec.name) for spec in chosen}
            seconds = sum(each.seconds for each in kept.values())
            cpu_seconds = sum(each.cpu_seconds for each in kept.values())
    tokens = sum(each.tokens for each in kept.values())
    return {
        "rate": tokens / seconds,
        "cpu_rate": tokens / cpu_seconds,
        "memory": memory() - before,
        "losses": {name: each.losses for name, each in kept.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("rounds", 2), ("trials", 8), ("samples", 4), ("steps", 2), ("bits", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--dropout", type=float, default=0.0, help="of the adapters")
    parser.add_argument("--max-tokens", type=int, default=1024, help="of a shared pass")
    parser.add_argument("--large", action="store_true", help="random weights of the shape of Llama 3.2 1B")
    parser.add_argument("--base", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=["fused", "alone", "one"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measure(asked)))
        return
    with TemporaryDirectory() as folder:
        if asked.large:
            write_large(Path(folder))
            sys.argv += ["--base", folder]
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """Have each way measured in processes of its own, and print what they found."""
    found: dict[str, list[dict[str, Any]]] = {"fused": [], "alone": [], "one": []}
    for _ in range(asked.rounds):
        for way, results in found.items():
            output = subprocess.run(
                [sys.executable, *sys.argv, "--way", way], check=True, capture_output=True, text=True
            ).stdout
            results.append(json.loads(output.splitlines()[-1]))
            now = results[-1]
            per_cpu = f"{now['cpu_rate']:,.0f} per CPU second"
            print(f"{way}: {now['rate']:,.0f} tokens/s, {per_cpu}, {now['memory']:,.0f} MiB", flush=True)
    rate, cpu_rate = (
        {way: max(each[which] for each in results) for way, results in found.items()} for which in ("rate", "cpu_rate")
    )
    most = {way: min(each["memory"] for each in results) for way, results in found.items()}
    wrong = max(
        abs(one - other) / other
        for name, losses in found["alone"][0]["losses"].items()
        for one, other in zip(found["fused"][0]["losses"][name], losses, strict=True)
    )
    faster, smaller = rate["fused"] / rate["alone"], most["fused"] / (asked.trials * most["one"])
    print(f"tokens/s  {rate['fused']:,.0f} fused, {rate['alone']:,.0f} one after the other: x{faster:.2f}")
    faster = cpu_rate["fused"] / cpu_rate["alone"]
    print(f"per CPU s {cpu_rate['fused']:,.0f} fused, {cpu_rate['alone']:,.0f} one after the other: x{faster:.2f}")
    beside = f"{asked.trials} x {most['one']:,.0f} MiB side by side: x{smaller:.2f}"
    print(f"memory    {most['fused']:,.0f} MiB fused, {beside}; of one alone x{most['fused'] / most['one']:.2f}")
    print(f"loss      largest relative difference of a step {wrong:.1e}")


if __name__ == "__main__":
    main()
