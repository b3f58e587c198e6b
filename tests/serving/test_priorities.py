"""Who begins first: by priority, then in turn of the adapter versions."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from didact.errors import SpecError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine, GenerationRequest
from didact.serving.api.admission import Admission
from didact.serving.api.api_errors import ApiError
from didact.serving.api.keys import KeyFile, Keyring
from didact.serving.api.openai_types import ChatRequest
from didact.serving.api.parameters import read_body
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import PROMPTS, make_adapter, oracle, request
from tests.fakes.models import tiny_model

Order = Callable[[list[GenerationRequest]], list[int]]


@pytest.fixture()
def order() -> Order:
    """In which order requests that were there together are begun, one at a time."""

    def run(wanted: list[GenerationRequest]) -> list[int]:
        engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer(), max_batch_size=1)
        all_there, begun = threading.Event(), list[int]()
        for adapter in filter(None, (each.adapter for each in wanted)):  # else rows of others pass while it is read
            engine.preload(adapter).result(60)
        engine.borrow(None, lambda model: all_there.wait(60))

        async def read(index: int, pieces) -> None:
            async for delta in pieces:
                if delta.queued_seconds is not None:
                    begun.append(index)

        async def all_of_them() -> None:
            readers = [read(index, engine.generate(each)) for index, each in enumerate(wanted)]
            all_there.set()
            await asyncio.gather(*readers)

        asyncio.run(all_of_them())
        engine.close()
        return begun

    return run


def test_smaller_priorities_begin_first(order: Order) -> None:
    wanted = [request(PROMPTS[0], tokens=2, priority=priority) for priority in (0, 7, -1, 0, 7, -(2**31))]
    assert order(wanted) == [5, 2, 0, 3, 1, 4]


def test_versions_of_one_priority_take_turns(order: Order, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "a", 1)
    # 150 tokens each: a turn begins 256.
    base = [request(PROMPTS[0], tokens=147, priority=1, stop_token_ids=tuple(range(272))) for _ in range(4)]
    other = [request(PROMPTS[0], adapter, tokens=147, priority=1, stop_token_ids=tuple(range(272)))]
    late = [request(PROMPTS[0], adapter, tokens=2, priority=2)]
    begun = order([*late, *base, *other])
    assert begun[-1] == 0
    assert begun.index(5) < 4


def test_rows_of_all_priorities_share_a_batch() -> None:
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer(), max_batch_size=4)
    wanted = [request(prompt, tokens=12, priority=priority) for priority, prompt in enumerate(PROMPTS)]

    async def read(each: GenerationRequest) -> list[int]:
        return [token async for delta in engine.generate(each) for token in delta.token_ids]

    async def all_of_them() -> list[list[int]]:
        return await asyncio.gather(*map(read, wanted))

    found = asyncio.run(all_of_them())
    engine.close()
    assert found == [oracle("llama", each) for each in wanted]


def test_clients_say_it_as_to_vllm() -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "priority": -3}'
    assert read_body(body, ChatRequest).rank == -3
    assert read_body(body.replace(b"-3", b"null"), ChatRequest).rank is None


def test_a_key_limits_the_priority_of_its_requests(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add("batch", least_priority=5)
    file.add("anybody")
    admission = Admission(Keyring(file.path))
    batch, anybody = file.read()
    assert [admission.priority(batch, asked) for asked in (None, 5, 9)] == [5, 5, 9]
    assert [admission.priority(anybody, asked) for asked in (None, -3, 9)] == [0, -3, 9]
    assert admission.priority(None, -3) == -3
    with pytest.raises(ApiError, match=r"priority: found 0; this key may ask for 5 and larger ones") as refused:
        admission.priority(batch, 0)
    assert (refused.value.status, refused.value.param) == (400, "priority")
    urgent = file.add("urgent", least_priority=-2)
    assert admission.priority(Keyring(file.path).find(urgent), None) == 0
    with pytest.raises(SpecError, match="least_priority: found 4294967296; expected a whole number of 32 bits"):
        file.add("large", least_priority=2**32)
