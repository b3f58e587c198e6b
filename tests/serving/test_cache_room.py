"""Rows wait for memory of keys and values; one that could never have it is refused with the figures."""

import asyncio
import threading
from pathlib import Path

import pytest

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine, GenerationRequest, PromptTooLong
from didact.serving.engine.memory.cache_room import CacheRoom
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import PROMPTS, answers, oracle, request
from tests.fakes.models import tiny_model

PER_TOKEN = 2 * 2 * 2 * 16 * 4
"""Two layers, keys and values, two heads of 16, float32."""


def open_engine(num_tokens: int) -> EmbeddedEngine:
    host = AdapterHost(tiny_model(), TINY_BASE)
    return EmbeddedEngine(host, byte_tokenizer(), cache_bytes=num_tokens * PER_TOKEN + PER_TOKEN // 2)


def test_a_token_is_measured() -> None:
    assert CacheRoom(tiny_model(), 1024, 100 * PER_TOKEN).num_tokens == 100
    assert CacheRoom(tiny_model(), 1024, None).num_tokens is None
    assert CacheRoom(tiny_model("mamba"), 1024, 100).num_tokens is None


def test_what_can_never_have_room_is_refused_with_the_figures() -> None:
    engine = open_engine(20)

    async def ask(tokens: int) -> None:
        async for _ in engine.generate(request(PROMPTS[1], tokens=tokens)):
            pass

    asyncio.run(ask(9))  # 11 and 9
    with pytest.raises(PromptTooLong, match=r"values of 20 tokens .* 11 tokens and its answer up to 10"):
        asyncio.run(ask(10))
    engine.close()


def test_rows_wait_for_room_and_answer_as_ever() -> None:
    engine = open_engine(60)
    wanted = [request(prompt, tokens=12) for prompt in PROMPTS * 2]
    most: list[float] = []
    everyone, there = threading.Event(), engine.borrow(None, lambda model: everyone.wait(60))

    async def read(pieces) -> list[int]:
        found = []
        async for delta in pieces:
            most.append(engine.stats().cache_usage)
            found += delta.token_ids
        return found

    async def all_of_them() -> list[list[int]]:
        readers = [read(engine.generate(each)) for each in wanted]
        everyone.set()
        return await asyncio.gather(*readers)

    assert asyncio.run(all_of_them()) == [oracle("llama", each) for each in wanted]
    assert there.result()
    engine.close()
    assert 0.5 < max(most) <= 1.0


@pytest.mark.parametrize("num_tokens", [31, 62, 1000])
def test_a_large_request_is_not_passed_for_ever(num_tokens: int, tmp_path: Path) -> None:
    """As many small ones as there are would always have room."""
    engine = open_engine(num_tokens)
    small = [request(PROMPTS[2], tokens=4) for _ in range(12)]
    large = request(PROMPTS[4], tokens=12)  # 31 tokens
    order: list[GenerationRequest] = []
    everyone = threading.Event()
    engine.borrow(None, lambda model: everyone.wait(60))

    async def read(each: GenerationRequest, pieces) -> None:
        async for delta in pieces:
            if delta.queued_seconds is not None:
                order.append(each)

    async def all_of_them() -> None:
        readers = [read(each, engine.generate(each)) for each in (*small[:2], large, *small[2:])]
        everyone.set()
        await asyncio.gather(*readers)

    asyncio.run(all_of_them())
    engine.close()
    assert len(order) == 13
    assert order.index(large) <= 2
    assert len(answers(open_engine(31), [large])[0]) <= 12
