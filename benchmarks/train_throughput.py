"""Training throughput beside a plain `transformers.Trainer` + PEFT loop: same model, adapter, samples, dtype and batch.

    python benchmarks/train_throughput.py [--steps 6] [--rounds 2] [--threads 2]

Both train LoRA on the bundled base in one process; rounds alternate, the best of each counts. Tokens are real ones,
without padding. Prints tokens/s of both and their ratio.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from didact.models import attach_adapter, compute_dtype, load_base, use_packed_attention
from didact.spec import FinetuneSpec, validate
from didact.tokens import Sample, StepLoader
from didact.training import CheckpointStore, PreparedData, prepare_data, train


def recipe(steps: int) -> FinetuneSpec:
    """Reasoning-shaped text: word problems with worked answers."""
    source = {"name": "gsm_symbolic", "path": "reasoning-gym:gsm_symbolic", "max_rows": 8 * steps}
    training = {"steps": steps, "global_batch_size": 8, "micro_batch_size": 8, "checkpoint_every": 10_000}
    values = {"name": "throughput", "data": {"sources": [source]}, "training": training}
    return validate(FinetuneSpec, values, "benchmark")


def didact_rate(spec: FinetuneSpec, prepared: PreparedData) -> float:
    """Tokens per second of our loop."""
    base = load_base(spec.model)
    use_packed_attention(base, spec.tokens.max_length)
    model = attach_adapter(base, spec.adapter, seed=0, base_name="base")
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            model,
            prepared.loader(spec),
            spec.training,
            num_steps=prepared.num_steps,
            compute_dtype=compute_dtype(spec.model),
            checkpoints=CheckpointStore(Path(folder), keep=2, identity="benchmark"),
        )
    return result.tokens / result.seconds


def trainer_rate(spec: FinetuneSpec, prepared: PreparedData) -> float:
    """Tokens per second of transformers' Trainer on the same samples in the same order."""
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="base")
    rows = [
        {"input_ids": sample.ids.tolist(), "labels": np.where(sample.mask, sample.ids, -100).tolist()}
        for sample in samples_in_order(prepared.loader(spec), prepared.num_steps)
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=prepared.num_steps,
            per_device_train_batch_size=spec.training.global_batch_size,
            learning_rate=spec.training.learning_rate,
            train_sampling_strategy="sequential",
            use_cpu=True,
            bf16=compute_dtype(spec.model) == torch.bfloat16,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        collator = DataCollatorForSeq2Seq(prepared.tokenizer, padding=True, label_pad_token_id=-100)
        trainer = Trainer(model, arguments, data_collator=collator, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        began = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - began
    return sum(len(row["input_ids"]) for row in rows) / seconds


def samples_in_order(loader: StepLoader, num_steps: int) -> list[Sample]:
    """The samples of the first steps in mixture order."""
    ids = loader.mixture.ids(0, num_steps * loader.global_batch_size)
    return [loader.tables[each.source][each.row] for each in ids]


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    spec = recipe(arguments.steps)
    prepared = prepare_data(spec)
    stats = prepared.mixture.tables[0].stats
    rates: dict[str, list[float]] = {"didact": [], "Trainer": []}
    for _ in range(arguments.rounds):
        rates["didact"].append(didact_rate(spec, prepared))
        rates["Trainer"].append(trainer_rate(spec, prepared))
    best = {name: max(values) for name, values in rates.items()}
    dtype = str(compute_dtype(spec.model)).removeprefix("torch.")
    print(f"LoRA r={spec.adapter.r} on all linear layers, {dtype}, batch 8, {arguments.threads} threads")
    print(
        f"{stats.samples} samples, {stats.mean_tokens:.0f} tokens each, {stats.supervised / stats.tokens:.0%} learned"
    )
    for name, rate in best.items():
        print(f"{name:<8} {rate:7.1f} tokens/s   (rounds: {', '.join(f'{each:.1f}' for each in rates[name])})")
    print(f"ratio    {best['didact'] / best['Trainer']:.2f}")


if __name__ == "__main__":
    main()
