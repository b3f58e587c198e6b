"""The engine's model in the hands of others, between two rounds of generation."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.errors import AdapterError
from didact.serving import AdapterRef, EmbeddedEngine, EngineStopped
from tests.fakes.generation import PROMPTS, answer, answers, make_adapter, oracle, request

IDS = torch.tensor([PROMPTS[1]])


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def next_token(scores: torch.Tensor) -> list[int]:
    return [int(scores[0, -1].argmax())]


def test_a_function_sees_the_version_it_asks_for(engine: EmbeddedEngine, tmp_path: Path) -> None:
    adapters = [None, make_adapter(tmp_path / "a", 1), make_adapter(tmp_path / "b", 2)]
    borrowed = [engine.borrow(each, logits) for each in adapters]
    found = [next_token(each.result(timeout=20)) for each in borrowed]
    assert found == [oracle("llama", request(PROMPTS[1], each, tokens=1)) for each in adapters]
    assert engine.borrow(None, lambda _: threading.current_thread().name).result(timeout=20) == "generation"
    assert engine.stats().adapter_loads == 2


def test_answers_and_borrowers_do_not_touch_each_other(engine: EmbeddedEngine, tmp_path: Path) -> None:
    a, b = make_adapter(tmp_path / "a", 1), make_adapter(tmp_path / "b", 2)
    wanted = [request(prompt, adapter, tokens=10) for prompt in PROMPTS for adapter in (None, a)]

    async def both() -> tuple[list, list]:
        tasks = [asyncio.create_task(answer(engine, each)) for each in wanted]
        scores = []
        for adapter in (b, None, a, b):
            scores.append(await asyncio.wrap_future(engine.borrow(adapter, logits)))
        return await asyncio.gather(*tasks), [next_token(each) for each in scores]

    got, scored = asyncio.run(both())
    assert got == [oracle("llama", each) for each in wanted]
    assert scored == [oracle("llama", request(PROMPTS[1], each, tokens=1)) for each in (b, None, a, b)]


def test_an_error_goes_to_the_borrower_and_the_engine_goes_on(engine: EmbeddedEngine, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        engine.borrow(None, lambda _: 1 // 0).result(timeout=20)
    with pytest.raises(AdapterError):
        engine.borrow(AdapterRef("none:1#0", tmp_path), logits).result(timeout=20)
    assert answers(engine, [request(PROMPTS[0])]) == [oracle("llama", request(PROMPTS[0]))]


def test_a_borrower_without_a_place_waits_its_turn_and_newcomers_wait_behind_it(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    a, b, c = (make_adapter(tmp_path / name, seed) for seed, name in enumerate("abc"))
    ended: list[str] = []

    async def run(name: str, adapter: AdapterRef, tokens: int) -> None:
        await answer(engine, request(PROMPTS[0], adapter, tokens=tokens))
        ended.append(name)

    async def all_of_them() -> list[int]:
        tasks = [asyncio.create_task(run(name, adapter, 60)) for name, adapter in (("a", a), ("b", b))]
        while engine.stats().num_running < 2:
            await asyncio.sleep(0)
        borrowed = engine.borrow(c, logits)
        borrowed.add_done_callback(lambda _: ended.append("borrower"))
        while not engine._rounds.errands.holds_line:
            await asyncio.sleep(0)
        late = asyncio.create_task(run("late", a, 1))
        await asyncio.gather(*tasks, late)
        return next_token(borrowed.result())

    assert asyncio.run(all_of_them()) == oracle("llama", request(PROMPTS[1], c, tokens=1))
    assert ended.index("borrower") < ended.index("late")


def test_a_stopped_engine_lends_nothing(engine: EmbeddedEngine) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        begun.set()
        go_on.wait()

    running, queued = engine.borrow(None, hold), engine.borrow(None, logits)
    begun.wait()
    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(EngineStopped):
        while True:  # until the closing thread has said so
            engine.borrow(None, hold).cancel()
    go_on.set()
    closing.join()
    assert running.result(timeout=20) is None
    assert queued.exception(timeout=20) is not None
