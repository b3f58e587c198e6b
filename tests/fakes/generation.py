"""Requests to an engine on the tiny models, and what `generate()` of the same model answers."""

import asyncio
import time
from pathlib import Path

import torch

from didact.models import AdapterHost
from didact.serving import AdapterRef, EmbeddedEngine, GenerationRequest
from didact.spec import MethodSpec
from tests.fakes.adapters import TINY_BASE, save_tiny_adapter
from tests.fakes.models import tiny_model

PROMPTS = [tuple(range(40, 40 + length)) for length in (3, 11, 1, 7, 19)]


def make_adapter(folder: Path, seed: int, family: str = "llama", spec: MethodSpec | None = None) -> AdapterRef:
    sha256 = save_tiny_adapter(folder, seed, family=family, spec=spec)
    return AdapterRef(f"a{seed}:1#{sha256[:12]}", folder)


def request(
    prompt: tuple[int, ...], adapter: AdapterRef | None = None, tokens: int = 12, **fields
) -> GenerationRequest:
    name = f"{prompt[0]}-{len(prompt)}-{adapter}-{time.monotonic_ns()}"
    return GenerationRequest(name, prompt, adapter, tokens, **fields)


async def answer(engine: EmbeddedEngine, wanted: GenerationRequest) -> list[int]:
    return [token async for delta in engine.generate(wanted) for token in delta.token_ids]


def answers(engine: EmbeddedEngine, wanted: list[GenerationRequest]) -> list:
    async def all_of_them() -> list:
        return await asyncio.gather(*(answer(engine, each) for each in wanted), return_exceptions=True)

    return asyncio.run(all_of_them())


async def answers_beside(engine: EmbeddedEngine, running: GenerationRequest, *arriving: GenerationRequest) -> list:
    """All answers; those behind the first are asked for when that has some tokens."""
    first = asyncio.create_task(answer(engine, running))
    while engine.stats().generated_tokens < 4:
        await asyncio.sleep(0)
    return await asyncio.gather(first, *(answer(engine, each) for each in arriving))


def oracle(family: str, wanted: GenerationRequest) -> list[int]:
    """Greedy `generate()` of a model that holds only this adapter."""
    host = AdapterHost(tiny_model(family), TINY_BASE)
    if wanted.adapter:
        host.load("only", wanted.adapter.folder)
    ids = torch.tensor([wanted.prompt_ids])
    with host.active("only" if wanted.adapter else None) as model:
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=wanted.max_new_tokens,
            eos_token_id=list(wanted.stop_token_ids) or None,
            pad_token_id=0,
        )
    return output[0, ids.shape[1] :].tolist()
