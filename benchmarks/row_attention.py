"""Attention of a decoding step over each row's own columns, beside transformers' attention over all of them.

    python benchmarks/row_attention.py [--threads 1] [--rounds 8]

One layer of the bundled base's shape (9 heads of 64 numbers, 3 of them keys) and one of a base of 7 billion parameters
(32 heads of 128, 8 keys), float32. As many layers are computed in turn as no cache of a processor holds, in alternating
rounds of which the best counts. Rows of one length are computed the same way by both.
"""

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from didact.devices import processor
from didact.serving.engine.memory.row_attention import row_attention, rows_beginning

SHAPES = {"9 heads of 64": (9, 3, 64), "32 heads of 128": (32, 8, 128)}
_BYTES = 3e8


def crowds() -> dict[str, list[int]]:
    """Columns of each row, by what they are."""
    return {
        "16 rows of 512 columns": [512] * 16,
        "16 rows of 32 to 512 columns": [32 * row for row in range(1, 17)],
        "16 rows of 64 to 1,024 columns": [64 * row for row in range(1, 17)],
        "15 rows of 200 columns, one of 6,000": [200] * 15 + [6000],
    }


def measure(shape: tuple[int, int, int], lengths: list[int], rounds: int) -> tuple[float, float]:
    """Milliseconds of a layer: of all columns, and of each row's own."""
    heads, key_heads, size = shape
    rows, columns = len(lengths), max(lengths)
    num_layers = max(2, round(_BYTES / (rows * columns * key_heads * size * 8)))
    query = torch.randn(rows, heads, 1, size)
    memory = [[torch.randn(rows, key_heads, columns, size) for _ in range(2)] for _ in range(num_layers)]
    starts = [columns - length for length in lengths]
    mask = (torch.arange(columns) >= torch.tensor(starts)[:, None])[:, None, None]
    layer: Any = SimpleNamespace(num_key_value_groups=heads // key_heads, is_causal=True)

    def all_columns() -> list[torch.Tensor]:
        return [sdpa_attention_forward(layer, query, key, value, mask)[0] for key, value in memory]

    def own_columns() -> list[torch.Tensor]:
        with rows_beginning(starts):
            return [row_attention(layer, query, key, value, mask)[0] for key, value in memory]

    for one, other in zip(all_columns(), own_columns(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for index, work in enumerate((all_columns, own_columns)):
            best[index] = min(best[index], _seconds(work))
    return best[0] / num_layers * 1000, best[1] / num_layers * 1000


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    print(f"{processor().splitlines()[0].partition(':')[2].strip()}, {asked.threads} threads, float32\n")
    print("| heads | rows | all columns, ms | own columns, ms | faster by |")
    print("|---|---|---:|---:|---:|")
    with torch.inference_mode():
        for heads, shape in SHAPES.items():
            for name, lengths in crowds().items():
                whole, own = measure(shape, lengths, asked.rounds)
                print(f"| {heads} | {name} | {whole:.2f} | {own:.2f} | {whole / own:.2f} |", flush=True)


if __name__ == "__main__":
    main()
