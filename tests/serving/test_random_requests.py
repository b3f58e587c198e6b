"""Random requests that come, leave and push adapters out, beside `generate()` for each alone, token for token."""

import asyncio
import functools
import random
from pathlib import Path

import pytest

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import AdapterRef, EmbeddedEngine, GenerationRequest
from didact.serving.engine.memory import row_attention
from didact.spec import Ia3Spec, LoraSpec, PrefixSpec
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import answer, make_adapter, oracle, request
from tests.fakes.models import tiny_model

SPECS = [
    LoraSpec(r=4),
    LoraSpec(r=7, rslora=True),
    LoraSpec(r=1, alpha=3),
    Ia3Spec(method="ia3"),
    LoraSpec(r=4, dora=True),
    PrefixSpec(method="prefix", num_virtual_tokens=5),
]


async def crowd(engine: EmbeddedEngine, wanted: list[GenerationRequest], choose: random.Random) -> list[object]:
    """Ask one after another, sometimes waiting a while; one in eight leaves again."""
    tasks = []
    for each in wanted:
        tasks.append(asyncio.create_task(answer(engine, each)))
        for _ in range(choose.choice([0, 0, 1, 5, 40])):
            await asyncio.sleep(0)
        if choose.random() < 1 / 8:
            choose.choice(tasks).cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


BY_ROWS, TOGETHER = 0, 10**9
"""What makes attention read each row's columns alone always, and never."""


@pytest.mark.parametrize(
    ("family", "worth", "count"),
    [
        *(("llama", BY_ROWS, 30), ("qwen3", TOGETHER, 30), ("gpt2", BY_ROWS, 30)),
        *(
            pytest.param(*each, 1000, marks=pytest.mark.nightly)
            for each in (("llama", BY_ROWS), ("llama", TOGETHER), ("gemma", BY_ROWS), ("gpt_neox", TOGETHER))
        ),
    ],
)
def test_every_answer_is_that_of_generate(
    family: str, worth: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_attention, "_WORTH", worth)
    adapters: list[AdapterRef | None] = [None, None]
    adapters += [make_adapter(tmp_path / str(seed), seed, family, spec) for seed, spec in enumerate(SPECS)]
    choose = random.Random(count)
    prompts = [tuple(choose.choices(range(200), k=choose.choice([1, 3, 20, 70]))) for _ in range(6)]
    wanted = [
        request(choose.choice(prompts), choose.choice(adapters), tokens=choose.choice([1, 4, 12])) for _ in range(count)
    ]
    engine = EmbeddedEngine(
        AdapterHost(tiny_model(family), TINY_BASE),
        byte_tokenizer(),
        max_adapters=3,
        max_batch_size=5,
        max_waiting=count,
        prompt_tokens_per_round=32,
    )
    try:
        found = asyncio.run(crowd(engine, wanted, choose))
        stats = engine.stats()
    finally:
        engine.close()

    @functools.cache
    def expected(prompt: tuple[int, ...], adapter: AdapterRef | None) -> list[int]:
        return oracle(family, request(prompt, adapter, tokens=12))

    answered = [(each, tokens) for each, tokens in zip(wanted, found, strict=True) if isinstance(tokens, list)]
    assert all(isinstance(each, list | asyncio.CancelledError) for each in found)
    assert len(answered) > count // 2
    for each, tokens in answered:
        assert tokens == expected(each.prompt_ids, each.adapter)[: each.max_new_tokens]
    assert (stats.num_running, stats.num_waiting) == (0, 0)
    assert stats.adapter_evictions > 0
