"""What it would bring to compute the blocks below the lowest adapted one once, and keep what they give for all epochs.

    PYTHONPATH=platform:. python benchmarks/frozen_blocks.py [--top 8] [--rounds 3]

The bundled base with LoRA on its top blocks, one thread, rows of 8 samples of 96 tokens. Three ways alternate: a plain
step, the lower blocks alone, and a step that begins at what they gave; CPU seconds, medians. A kept state must not
depend on which samples shared its row, or a resumed run would differ from an unbroken one in its last bits; so it is
computed sample by sample, and packed as well, to see what that costs. Losses of both ways are compared. Reading kept
states back is not counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from didact.models import attach_adapter, compute_dtype, load_base, use_packed_attention
from didact.models.methods.blocks import decoder_blocks
from didact.spec import LoraSpec, ModelSpec
from didact.tokens import Batch, Sample, pack
from didact.training import Objective

SAMPLES, LENGTH = 8, 96


class _ReachedError(Exception):
    """Ends a pass at the lowest adapted block."""


class Cut:
    """A model with adapters on its top blocks, cut below them."""

    def __init__(self, top: int) -> None:
        base = load_base(ModelSpec())
        use_packed_attention(base, 512)
        number = len(decoder_blocks(base))
        chosen = "|".join(str(each) for each in range(number - top, number))
        targets = rf".*layers\.({chosen})\..*_proj"
        self.model = attach_adapter(base, LoraSpec(target_modules=targets, dropout=0.0), seed=0, base_name="base")
        blocks = [base.get_submodule(block.name) for block in decoder_blocks(base)]
        self.lower, self.first = blocks[: number - top], blocks[number - top]
        self.objective = Objective(self.model, compute_dtype(ModelSpec()))

    def step(self, batch: Batch) -> float:
        """Forward and backward; returns the loss."""
        loss = self.objective.summed_loss(batch)
        loss.backward()
        for parameter in self.model.parameters():
            parameter.grad = None
        return loss.item()

    def states(self, batch: Batch) -> torch.Tensor:
        """What the lower blocks give: [1, tokens, hidden]."""
        kept: list[torch.Tensor] = []

        def reached(_block: torch.nn.Module, args: tuple[Any, ...]) -> None:
            kept.append(args[0].detach())
            raise _ReachedError

        hook = self.first.register_forward_pre_hook(reached)
        try:
            with torch.no_grad():
                self.objective.summed_loss(batch)
        except _ReachedError:
            pass
        finally:
            hook.remove()
        return kept[0]

    @contextmanager
    def beginning_at(self, states: torch.Tensor) -> Iterator[None]:
        """Within it the lower blocks do nothing, and the first adapted one is given `states`."""
        hook = self.first.register_forward_pre_hook(lambda _block, args: (states, *args[1:]))
        for block in self.lower:
            block.forward = lambda hidden, *_args, **_options: hidden  # type: ignore[method-assign]
        try:
            yield
        finally:
            hook.remove()
            for block in self.lower:
                del block.forward


def row(generator: np.random.Generator, learned: int, samples: int = SAMPLES) -> Batch:
    """Random tokens, the last `learned` of each sample learned."""
    mask = np.arange(LENGTH) >= LENGTH - learned
    return pack([Sample(generator.integers(100, 40_000, LENGTH).astype(np.int32), mask) for _ in range(samples)])


def seconds(work: Callable[[Batch], object], batch: Batch) -> float:
    """CPU seconds."""
    began = time.process_time()
    work(batch)
    return time.process_time() - began


def main() -> None:
    """Print a line for each share of learned tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--top", type=int, default=8, help="adapted blocks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", type=int, nargs="+", default=[2, 4, 8], help="of each sample a half is learned, ...")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cut, generator = Cut(options.top), np.random.default_rng(0)
    for part in options.parts:
        found: dict[str, list[float]] = {name: [] for name in ("plain", "packed", "alone", "kept")}
        for turn in range(options.rounds + 1):
            batch = row(generator, LENGTH // part)
            states, plain = cut.states(batch), cut.step(batch)
            with cut.beginning_at(states):
                assert abs(cut.step(batch) - plain) <= 1e-6 * plain, "the two ways differ"
                kept = seconds(cut.step, batch)
            single = row(generator, LENGTH // part, samples=1)
            times = {
                "plain": seconds(cut.step, batch),
                "packed": seconds(cut.states, batch),
                "alone": SAMPLES * seconds(cut.states, single),
                "kept": kept,
            }
            for name, each in times.items():
                found[name] += [each] if turn else []  # the first ones warm up
        middle = {name: statistics.median(each) for name, each in found.items()}
        print(f"1/{part} learned: " + ", ".join(f"{name} {each:.3f} s" for name, each in middle.items()), flush=True)
        for epochs in (3, 5):
            gains = [
                epochs * middle["plain"] / (middle[fill] + epochs * middle["kept"]) for fill in ("packed", "alone")
            ]
            print(f"    {epochs} epochs: {gains[0]:.2f} times as fast, {gains[1]:.2f} sample by sample", flush=True)


if __name__ == "__main__":
    main()
