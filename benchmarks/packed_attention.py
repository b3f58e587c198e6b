"""Attention over packed rows sample by sample, beside the dense mask.

    python benchmarks/packed_attention.py [--rounds 3]                  # on a processor
    PYTHONPATH=platform:. python -m benchmarks.packed_attention --device cuda    # on a GPU

On a processor: one LoRA micro-batch of the bundled base, forward and backward, one thread, 8 samples a row, rows of
short and of mixed lengths; tokens per CPU second of both and their ratio. On a GPU: the attention of one layer (32
heads of 128, bfloat16) alone, forward and backward, on rows of 2k, 8k and 32k tokens, in each way there is to keep
samples apart, mask included. Rounds alternate and the best of each counts.
"""

import argparse
import functools
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import flex_attention

from didact.gpu_proof.subjects import short_lengths
from didact.models import attach_adapter, compute_dtype, load_base, use_packed_attention
from didact.models.versions import VARLEN
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


def gpu_table(rounds: int) -> None:
    """Milliseconds of each way on each row, and how many times as fast as the dense mask."""
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for tokens in (2048, 8192, 32_768):
        for kind, wanted in (("short", 120), ("long", 1024)):
            lengths = _lengths(tokens, wanted)
            states = [
                torch.randn(1, 32, tokens, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
                for _ in range(3)
            ]
            best: dict[str, float | str] = {}
            for name, attend in WAYS.items():
                try:
                    best[name] = _milliseconds(attend, states, lengths, rounds)
                except Exception as error:  # noqa: BLE001 - the other ways are measured anyway
                    best[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"
                torch.cuda.empty_cache()
            words = [
                f"{name} {each:.2f}" if isinstance(each, float) else f"{name} {each}" for name, each in best.items()
            ]
            print(f"{tokens:>6} tokens, {len(lengths):>3} {kind} samples, ms: " + ", ".join(words), flush=True)


def _lengths(tokens: int, mean: int) -> list[int]:
    drawn = [max(8, min(4 * mean, round(each * mean / 120))) for each in short_lengths(tokens // mean * 3)]
    chosen: list[int] = []
    while sum(chosen) < tokens:
        chosen.append(min(drawn.pop(), tokens - sum(chosen)))
    return chosen


def _milliseconds(
    attend: Callable[..., torch.Tensor], states: list[torch.Tensor], lengths: list[int], rounds: int
) -> float:
    best = float("inf")
    for _ in range(rounds + 2):  # the first ones compile and warm up
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        output = attend(*states, lengths)
        output.backward(output.detach())
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end))
        for each in states:
            each.grad = None
    return best


def _sample_numbers(lengths: list[int]) -> torch.Tensor:
    numbers = torch.arange(len(lengths), device="cuda")
    return numbers.repeat_interleave(torch.tensor(lengths, device="cuda"), output_size=sum(lengths))


def _dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    numbers = _sample_numbers(lengths)
    mask = (numbers[:, None] == numbers[None]).tril()
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[None, None])


def _varlen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    if VARLEN is None:
        raise RuntimeError("this PyTorch has no varlen_attn")
    bounds = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device="cuda")
    rows = (each[0].transpose(0, 1) for each in (query, key, value))
    return VARLEN(*rows, bounds, max(lengths), query.shape[-1] ** -0.5)


def _each_alone(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    parts = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    return torch.cat([functional.scaled_dot_product_attention(*part, is_causal=True) for part in parts], dim=2)


@functools.cache
def _compiled_flex() -> Callable[..., torch.Tensor]:
    return torch.compile(flex_attention.flex_attention, dynamic=False)


def _flex(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    numbers = _sample_numbers(lengths)

    def apart(_batch: Any, _head: Any, row: Any, column: Any) -> Any:
        return (row >= column) & (numbers[row] == numbers[column])

    mask = flex_attention.create_block_mask(apart, None, None, sum(lengths), sum(lengths), device="cuda")
    return _compiled_flex()(query, key, value, block_mask=mask)


WAYS = {"dense mask": _dense, "varlen_attn": _varlen, "flex_attention": _flex, "each alone": _each_alone}


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    if arguments.device == "cuda":
        return gpu_table(rounds)
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
