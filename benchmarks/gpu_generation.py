"""Contestants of `benchmarks/gpu.py` in generation: the embedded engine, and transformers' continuous batching."""

import asyncio
import itertools
import tempfile
import time
from pathlib import Path

import torch

from didact.gpu_proof.engine import FINGERPRINT, generate, random_adapter
from didact.gpu_proof.subjects import large_config, random_base
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving.engine import EmbeddedEngine, GenerationRequest

PROMPT_TOKENS = 64


def engine(size: str, device: torch.device, rows: int, num_adapters: int, num_tokens: int) -> float:
    """Generated tokens per second of `rows` requests at once, spread over the adapters (none: the base)."""
    base = random_base(large_config(size), device, torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        adapters = [random_adapter(base, Path(folder) / str(seed), seed, 0.02) for seed in range(num_adapters)]
        running = EmbeddedEngine(
            AdapterHost(base, FINGERPRINT), byte_tokenizer(), max_adapters=16, max_batch_size=rows, max_waiting=rows
        )
        try:
            for tokens in (4, num_tokens):  # the first round loads adapters and warms up
                asked = zip(prompts(rows), itertools.cycle(adapters or [None]), strict=False)
                requests = [
                    GenerationRequest(f"{tokens}-{row}", prompt, adapter, tokens)
                    for row, (prompt, adapter) in enumerate(asked)
                ]
                began = time.monotonic()
                answers = asyncio.run(generate(running, requests))
                seconds = time.monotonic() - began
        finally:
            running.close()
    return sum(map(len, answers)) / seconds


def continuous_batching(size: str, device: torch.device, rows: int, num_tokens: int) -> float:
    """The same of transformers' own, on the base."""
    from transformers import GenerationConfig

    model = random_base(large_config(size), device, torch.bfloat16)
    config = GenerationConfig(max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    model.set_attn_implementation("paged|sdpa")
    for tokens in (4, num_tokens):
        config.max_new_tokens = tokens
        began = time.monotonic()
        answers = model.generate_batch([list(each) for each in prompts(rows)], generation_config=config)
        seconds = time.monotonic() - began
    return sum(len(each.generated_tokens) for each in answers.values()) / seconds


def prompts(rows: int) -> list[tuple[int, ...]]:
    """Random, all of one length and all different."""
    drawn = torch.randint(10, 30_000, (rows, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    return [tuple(row) for row in drawn.tolist()]
