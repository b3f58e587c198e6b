"""Contestants of `benchmarks/gpu.py` in generation: both engines, and transformers' continuous batching."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from didact.gpu_proof.engine import FINGERPRINT, generate, random_adapter
from didact.gpu_proof.subjects import large_config, random_base
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving.engine import AdapterRef, EmbeddedEngine, Engine, GenerationRequest
from didact.serving.engine.on_vllm import start_vllm
from didact.spec import ServeSpec, validate

PROMPT_TOKENS = 64
ADAPTERS = 16


def engine(size: str, device: torch.device, rows: int, num_adapters: int, num_tokens: int) -> float:
    """Generated tokens per second of `rows` requests at once, spread over the adapters (none: the base)."""
    base = random_base(large_config(size), device, torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        adapters = [random_adapter(base, Path(folder) / str(seed), seed, 0.02) for seed in range(num_adapters)]
        running = EmbeddedEngine(
            AdapterHost(base, FINGERPRINT),
            byte_tokenizer(),
            max_adapters=ADAPTERS,
            max_batch_size=rows,
            max_waiting=rows,
        )
        try:
            return _rate(running, rows, adapters, num_tokens)
        finally:
            running.close()


def vllm(size: str, device: torch.device, all_rows: Sequence[int], num_tokens: int) -> dict[str, dict[int, float]]:
    """The same of the engine `vllm`, which is started once: of the base, and of 16 adapters, for each number of rows.

    Needs `DIDACT_VLLM_PYTHON`. vLLM has compiled the model and recorded its steps before the clock runs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "base"
        base = random_base(large_config(size), device, torch.bfloat16)
        base.save_pretrained(folder)
        tokenizer = byte_tokenizer()
        tokenizer.save_pretrained(folder)
        adapters = [random_adapter(base, Path(scratch) / str(seed), seed, 0.02) for seed in range(ADAPTERS)]
        del base
        torch.cuda.empty_cache()
        asked = {"engine": "vllm", "model": {"base": str(folder)}, "max_adapters": ADAPTERS}
        asked |= {"max_batch_size": max(all_rows), "max_waiting": max(all_rows)}
        asked |= {"vllm": {"max_lora_rank": 8, "max_context_length": 2048, "gpu_memory_utilization": 0.6}}
        spec: ServeSpec = validate(ServeSpec, asked, "benchmark")
        running = start_vllm(spec, folder, tokenizer, FINGERPRINT, dtype="bfloat16", on_gpu=True)
        try:
            return {
                name: {rows: _rate(running, rows, used, num_tokens) for rows in all_rows}
                for name, used in (("base", []), (f"{ADAPTERS} adapters", adapters))
            }
        finally:
            running.close()


def _rate(running: Engine, rows: int, adapters: Sequence[AdapterRef], num_tokens: int) -> float:
    """Generated tokens per second of `rows` requests at once."""
    for tokens in (4, num_tokens):  # the first round loads adapters and warms up
        asked = zip(prompts(rows), itertools.cycle(adapters or [None]), strict=False)
        requests = [
            GenerationRequest(f"{rows}-{len(adapters)}-{tokens}-{row}", prompt, adapter, tokens)
            for row, (prompt, adapter) in enumerate(asked)
        ]
        began = time.monotonic()
        answers = asyncio.run(generate(running, requests))
        seconds = time.monotonic() - began
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
