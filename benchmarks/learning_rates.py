"""Held-out loss of every method after a short run at several learning rates.

    python benchmarks/learning_rates.py [--methods lora prompt] [--rates 2e-4 1e-3] [--steps 24] [--workers 2]

The bundled base, batch 8, records of `--data` (alpaca-form JSON files, or generated word problems without it), 64 of
them held out; each run is a process of one thread. Prints a table with the loss of the base and, in bold, the best of
each method.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from didact.cluster.worker import held_out_losses
from didact.errors import TrainingDiverged
from didact.models import compute_dtype
from didact.preparation import prepare_data
from didact.spec import ADAPTER_METHODS, FinetuneSpec, validate
from didact.training import CheckpointStore, World, train, trainable_model

METHODS: dict[str, dict[str, Any]] = {name: {"method": name} for name in ADAPTER_METHODS if name != "peft"}
METHODS["partial"]["last_n_layers"] = 2
RATES = [1e-5, 5e-5, 2e-4, 1e-3, 5e-3, 2e-2, 1e-1]


def recipe(data: Path | None, adapter: dict[str, Any], rate: float, steps: int) -> FinetuneSpec:
    """One run."""
    sources: list[dict[str, Any]] = [
        {"name": "words", "path": "reasoning-gym:gsm_symbolic", "max_rows": 8 * steps + 64}
    ]
    if data is not None:
        files = sorted(data.glob("*.json"))
        sources = [{"name": file.stem, "path": str(file), "max_rows": 400} for file in files]
    for source in sources:
        source["held_out_rows"] = -(-64 // len(sources))
    training = {"steps": steps, "global_batch_size": 8, "learning_rate": rate, "checkpoint_every": 100_000}
    values = {"name": "rates", "data": {"sources": sources}, "adapter": adapter, "training": training}
    return validate(FinetuneSpec, values, "benchmark")


def held_out_loss(data: Path | None, adapter: dict[str, Any], rate: float, steps: int) -> float:
    """Loss after the run; of the base for a rate of 0."""
    torch.set_num_threads(1)
    spec, world, cpu = recipe(data, adapter, rate or 1e-4, steps), World.current(), torch.device("cpu")
    prepared = prepare_data(spec)
    model, packing = trainable_model(spec, prepared.num_steps, cpu)
    if rate:
        with tempfile.TemporaryDirectory() as folder:
            try:
                train(
                    model,
                    prepared.loader(spec, packing=packing),
                    spec.training,
                    num_steps=prepared.num_steps,
                    compute_dtype=compute_dtype(spec.model),
                    checkpoints=CheckpointStore(Path(folder), keep=1, identity="rates"),
                    adapter=spec.adapter,
                )
            except TrainingDiverged:
                return float("nan")
    return held_out_losses(model, prepared, world, packing=packing, device=cpu)["eval/loss"]


def main() -> None:
    """Print one row a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        runs = {
            (name, rate): pool.submit(held_out_loss, arguments.data, METHODS[name], rate, arguments.steps)
            for name in arguments.methods
            for rate in arguments.rates
        }
        base = pool.submit(held_out_loss, arguments.data, METHODS["lora"], 0.0, arguments.steps).result()
        print(f"base {base:.3f}\n\n| method | " + " | ".join(f"{rate:g}" for rate in arguments.rates) + " |")
        print("|---|" + "---:|" * len(arguments.rates))
        for name in arguments.methods:
            losses = [runs[name, rate].result() for rate in arguments.rates]
            best = min((loss for loss in losses if loss == loss), default=0.0)
            print(f"| {name} | " + " | ".join(f"**{x:.3f}**" if x == best else f"{x:.3f}" for x in losses) + " |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
