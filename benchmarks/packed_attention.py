"""Attention over packed rows sample by sample, beside the dense mask: one LoRA micro-batch, forward and backward.

    python benchmarks/packed_attention.py [--rounds 3]

One thread, the bundled base, 8 samples a row, rows of short and of mixed lengths. Prints tokens per CPU second of both
and their ratio; rounds alternate and the best of each counts.
"""

import argparse
import logging
import time

import torch

from didact.models import attach_adapter, compute_dtype, load_base, use_packed_attention
from didact.spec import LoraSpec, ModelSpec
from didact.tokens import Batch, Sample, pack
from didact.training import Objective

ROWS = {"short (8 x 52)": [52] * 8, "mixed (32 to 480)": [480, 240, 160, 120, 96, 64, 48, 32]}


def packed_row(lengths: list[int]) -> Batch:
    """Random tokens, half of each sample learned."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for length in lengths:
        ids = torch.randint(100, 40_000, (length,), generator=generator, dtype=torch.int32).numpy()
        mask = torch.arange(length).ge(length // 2).numpy()
        samples.append(Sample(ids, mask))
    return pack(samples)


def objective(switch: bool) -> tuple[Objective, list[torch.nn.Parameter]]:
    """The loss of the bundled base with LoRA, with or without our attention."""
    base = load_base(ModelSpec())
    if switch:
        use_packed_attention(base, 512)
    model = attach_adapter(base, LoraSpec(), seed=0, base_name="base")
    return Objective(model, compute_dtype(ModelSpec())), [p for p in model.parameters() if p.requires_grad]


def rate(loss: Objective, parameters: list[torch.nn.Parameter], batch: Batch) -> float:
    """Tokens per CPU second of one forward and backward pass."""
    began = time.process_time()
    loss.summed_loss(batch).backward()
    seconds = time.process_time() - began
    for parameter in parameters:
        parameter.grad = None
    return batch.num_tokens / seconds


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    subjects = {"dense mask": objective(False), "sample by sample": objective(True)}
    for name, lengths in ROWS.items():
        batch = packed_row(lengths)
        best = dict.fromkeys(subjects, 0.0)
        for _ in range(rounds + 1):  # the first round warms up; a later one is better
            for subject, (loss, parameters) in subjects.items():
                best[subject] = max(best[subject], rate(loss, parameters, batch))
        figures = ", ".join(f"{subject} {value:.0f}" for subject, value in best.items())
        print(f"{name:<18} {figures} tokens per CPU second, ratio {best['sample by sample'] / best['dense mask']:.2f}")


if __name__ == "__main__":
    main()
