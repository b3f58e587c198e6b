"""Whatever one request, caller or adapter does, the engine lives and the others answer."""

import asyncio
from pathlib import Path

import pytest
import torch

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import (
    AdapterRef,
    EmbeddedEngine,
    EngineDied,
    EngineStopped,
    GenerationFailed,
    Sampling,
)
from didact.serving.engine import adapter_pool
from didact.serving.engine.text_stream import TextStream
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import PROMPTS, answers, make_adapter, oracle, request
from tests.fakes.models import tiny_model


def test_a_poisoned_request_fails_alone(engine: EmbeddedEngine) -> None:
    poison = 99

    def refuse(module: torch.nn.Module, arguments: tuple, inputs: dict) -> None:
        if (inputs["input_ids"] == poison).any():
            raise ValueError("poisoned")

    engine._base.register_forward_pre_hook(refuse, with_kwargs=True)
    healthy = [request(prompt) for prompt in PROMPTS]
    got = answers(engine, [*healthy[:2], request((40, poison)), *healthy[2:]])
    assert isinstance(got.pop(2), GenerationFailed)
    expected = [oracle("llama", each) for each in healthy]
    assert [each for each, tokens in zip(got, expected, strict=True) if poison not in tokens] == [
        tokens for tokens in expected if poison not in tokens
    ]
    engine.health()


def test_values_that_are_not_finite_fail_only_their_row(engine: EmbeddedEngine) -> None:
    with torch.no_grad():
        engine._base.get_input_embeddings().weight[99] = torch.nan
    got = answers(engine, [request((40, 99)), request(PROMPTS[0], tokens=2)])
    assert isinstance(got[0], GenerationFailed)
    assert len(got[1]) == 2


@pytest.mark.parametrize("guilty", [0, 3, 6])
def test_a_row_that_breaks_a_later_step_is_found_by_halving(guilty: int) -> None:
    """It reads its prompt like any other; the batch fails at its fifth token, and at no cost to the others' answers."""
    wanted = [request((40 + index, 7), tokens=12) for index in range(7)]
    expected = [oracle("llama", each) for each in wanted]
    model, sizes = tiny_model(), []

    def refuse(module: torch.nn.Module, arguments: tuple, inputs: dict) -> None:
        sizes.append(inputs["input_ids"].shape[0])
        longer = inputs["attention_mask"].sum(-1) > 6 if "attention_mask" in inputs else torch.tensor([False])
        if ((inputs["input_ids"] == expected[guilty][4]).any(-1) & longer).any():
            raise RuntimeError("poisoned")

    model.register_forward_pre_hook(refuse, with_kwargs=True)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer())
    try:
        got = answers(engine, wanted)
        engine.health()
    finally:
        engine.close()
    poison = expected[guilty][4]
    for tokens, right in zip(got, expected, strict=True):
        if poison in right[4:11]:
            assert isinstance(tokens, GenerationFailed)
        else:
            assert tokens == right
    assert isinstance(got[guilty], GenerationFailed)
    assert max(sizes) > 3  # they did not all run alone


@pytest.mark.parametrize("place", ["sampler", "text", "nan", "infinite"])
def test_whatever_one_row_does_the_others_answer(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_model(), byte_tokenizer()
    bad = request((40, 99), tokens=6, sampling=Sampling(temperature=0.5, seed=3), stop=("zz",))
    healthy = [request(prompt, tokens=6) for prompt in PROMPTS[:3]]
    expected = [oracle("llama", each) for each in healthy]
    if place == "sampler":
        monkeypatch.setattr(torch, "multinomial", lambda *_, **__: 1 / 0)
    elif place == "text":
        monkeypatch.setattr(TextStream, "_possible_stop", lambda self, text: 1 / 0 if self._stop else 0)
    else:
        with torch.no_grad():
            model.get_input_embeddings().weight[99] = torch.nan if place == "nan" else torch.inf
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), tokenizer)
    try:
        got = answers(engine, [healthy[0], bad, *healthy[1:]])
        assert isinstance(got.pop(1), GenerationFailed)
        assert got == expected
        engine.health()
    finally:
        engine.close()


def test_a_caller_whose_loop_is_gone_hurts_nobody(engine: EmbeddedEngine) -> None:
    loop = asyncio.new_event_loop()
    abandoned = loop.run_until_complete(asyncio.sleep(0, engine.generate))

    async def queue_only() -> None:
        abandoned(request(PROMPTS[0], tokens=900))

    loop.run_until_complete(queue_only())
    loop.close()
    assert answers(engine, [request(PROMPTS[1], tokens=4)]) == [oracle("llama", request(PROMPTS[1], tokens=4))]
    engine.health()


def test_a_preload_that_breaks_in_any_way_ends_only_itself(
    engine: EmbeddedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(adapter_pool, "load_row_adapter", lambda *_: [].pop())
        broken = engine.preload(AdapterRef("a:1#0", tmp_path))
        with pytest.raises(IndexError):
            broken.result(timeout=20)
        assert isinstance(answers(engine, [request(PROMPTS[0], AdapterRef("a:1#0", tmp_path))])[0], GenerationFailed)
    engine.preload(make_adapter(tmp_path / "good", 1)).result(timeout=20)
    assert len(answers(engine, [request(PROMPTS[0], tokens=3)])[0]) == 3


def test_a_base_that_computes_no_more_ends_the_engine_and_says_so(engine: EmbeddedEngine) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("device-side assert")

    engine._base.register_forward_pre_hook(broken)
    got = answers(engine, [request(prompt) for prompt in PROMPTS])
    assert all(isinstance(each, EngineDied) for each in got)
    with pytest.raises(EngineStopped):
        engine.health()
    assert isinstance(answers(engine, [request(PROMPTS[0])])[0], EngineStopped)
