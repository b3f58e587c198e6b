"""The embedded engine: base, LoRA and both at once, beside transformers' own generation of each alone."""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from didact.gpu_proof.checks import Check, Outcome
from didact.gpu_proof.numerics import CPU
from didact.gpu_proof.subjects import random_base, tiny_config
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost, attach_adapter, save_adapter
from didact.serving.engine import AdapterRef, EmbeddedEngine, GenerationRequest
from didact.spec import LoraSpec
from didact.tokens import TemplateContract

PROMPTS = tuple(tuple(range(10, 10 + length)) for length in (3, 60, 1, 17, 33))
FINGERPRINT = "r" * 64
_NUM_TOKENS = 16
_MANY_TOKENS = 150
"""More than a recorded step sees at first."""


def checks() -> Iterator[Check]:
    """All of this module."""
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield Check("engine", f"base, {name}, beside each prompt alone", partial(_answers, dtype=dtype, kinds=0))
        yield Check("engine", f"LoRA, {name}, beside each alone", partial(_answers, dtype=dtype, kinds=1))
        yield Check("engine", f"base and two LoRAs mixed, {name}", partial(_answers, dtype=dtype, kinds=3))

    yield Check("engine", "recorded steps, float32, long answers beside plain ones", _recorded)


def random_adapter(base: PreTrainedModel, folder: Path, seed: int, spread: float = 0.3) -> AdapterRef:
    """A folder with a LoRA adapter whose weights are random, strong enough to change answers. Leaves wrappers off."""
    model = attach_adapter(base, LoraSpec(r=8), seed=seed, base_name="random")
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=spread)
    folder.mkdir(parents=True)
    TemplateContract.build(byte_tokenizer(), "auto").save(folder)
    facts = save_adapter(model, folder, base="random", base_fingerprint=FINGERPRINT, method="lora")
    model.unload()
    return AdapterRef(f"a{seed}:1#{facts.sha256[:12]}", folder)


async def generate(engine: EmbeddedEngine, requests: Sequence[GenerationRequest]) -> list[list[int]]:
    """The tokens of each request, all asked for at once."""

    async def one(request: GenerationRequest) -> list[int]:
        return [token async for delta in engine.generate(request) for token in delta.token_ids]

    return await asyncio.gather(*(one(request) for request in requests))


def _answers(device: torch.device, dtype: torch.dtype, kinds: int) -> Outcome:
    """In float32 the share of answers that leave the way of the one alone.

    In bfloat16 rounding turns ties, of which a random base has many: how far the worst token lies below the one that
    the model alone prefers in its place, in standard deviations of all logits. Another adapter's lie 2.5 and more.
    """
    config = tiny_config()
    with tempfile.TemporaryDirectory() as folder:
        base = random_base(config, device, dtype, drawn_on=CPU)
        # In bfloat16 stronger ones would turn its rounding into other answers.
        spread = 0.3 if dtype == torch.float32 else 0.1
        references = [random_adapter(base, Path(folder) / str(seed), seed, spread) for seed in (1, 2)]
        choices: dict[int, list[AdapterRef | None]] = {0: [None], 1: [references[0]], 3: [None, *references]}
        host = AdapterHost(base, FINGERPRINT)
        engine = EmbeddedEngine(host, byte_tokenizer())
        try:
            asked = [
                GenerationRequest(f"{number}-{position}", prompt, adapter, _NUM_TOKENS)
                for number, prompt in enumerate(PROMPTS)
                for position, adapter in enumerate(choices[kinds])
            ]
            together = asyncio.run(generate(engine, asked))
        finally:
            engine.close()
        below = [_furthest(host, request, found) for request, found in zip(asked, together, strict=True)]
    wrong = sum(each > 0 for each in below)
    words = f"{len(asked) - wrong} of {len(asked)} answers equal"
    return Outcome(wrong / len(asked), 0.0, words) if dtype == torch.float32 else Outcome(max(below), 1.0, words)


def _recorded(device: torch.device) -> Outcome:
    """The share of answers that differ between an engine that records its decoding steps and one that does not."""
    with tempfile.TemporaryDirectory() as folder:
        base = random_base(tiny_config(), device, torch.float32, drawn_on=CPU)
        adapters: list[AdapterRef | None] = [None, random_adapter(base, Path(folder) / "1", 1)]
        asked = [
            GenerationRequest(f"{number}-{position}", prompt, adapter, _MANY_TOKENS - 13 * number)
            for number, prompt in enumerate(PROMPTS[:3])
            for position, adapter in enumerate(adapters)
        ]
        found = []
        for records in (True, False):
            engine = EmbeddedEngine(AdapterHost(base, FINGERPRINT), byte_tokenizer(), record_steps=records)
            try:
                found.append(asyncio.run(generate(engine, asked)))
                if engine.records_steps is not records:
                    raise RuntimeError("steps of a plain Llama could not be recorded")
            finally:
                engine.close()
    equal = sum(recorded == plain for recorded, plain in zip(*found, strict=True))
    return Outcome(1 - equal / len(asked), 0.0, f"{equal} of {len(asked)} answers equal")


def _furthest(host: AdapterHost, request: GenerationRequest, found: Sequence[int]) -> float:
    """How far a token of an answer lies below the likeliest one in its place, in standard deviations of the logits.

    The twin: one token after the other, the whole text computed anew each time, the adapter put on by PEFT.
    """
    name = None
    if request.adapter is not None:
        name = "alone"
        host.load(name, request.adapter.folder)
    ids, furthest = list(request.prompt_ids), 0.0
    with host.active(name) as model, torch.inference_mode():
        for token in found:
            output = model(input_ids=torch.tensor([ids], device=host.base.device), use_cache=False)
            logits = output.logits[0, -1].float()
            if int(logits.argmax()) != token:
                furthest = max(furthest, float((logits.max() - logits[token]) / logits.std()))
            ids.append(token)
    return furthest if len(found) == request.max_new_tokens else float("inf")
