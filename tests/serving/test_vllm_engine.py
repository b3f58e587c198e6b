"""The engine beside vLLM's process, with a vLLM that only does sums; `make test-vllm` asks the real one."""

import asyncio
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from didact.errors import AdapterError, DeviceError, SpecError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import base_fingerprint
from didact.serving import (
    AdapterRef,
    EngineDied,
    EngineStopped,
    GenerationFailed,
    GenerationRequest,
    GrammarError,
    GrammarsMissing,
    Sampling,
)
from didact.serving.engine.grammar import lark
from didact.serving.engine.on_vllm import VllmEngine
from didact.serving.engine.on_vllm.vllm_link import VllmLink, find_vllm
from didact.serving.engine.on_vllm.vllm_parameters import vllm_parameters
from didact.serving.engine.on_vllm.vllm_proof import prove_rows_apart
from didact.spec import LoraSpec, ModelSpec
from tests.fakes.engine_contract import save_contract_adapter, save_contract_base

FAKE = Path(__file__).resolve().parents[1] / "fakes" / "fake_vllm"
DIE, FAIL, ENDLESS = 250, 251, 252
_NUMBERS = itertools.count()
Open = Callable[..., VllmEngine]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return save_contract_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapters(base: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    folder = tmp_path_factory.mktemp("adapters")
    return [save_contract_adapter(base, folder / str(seed), seed, LoraSpec(r=seed)) for seed in (1, 2, 3, 4)]


@pytest.fixture()
def python(tmp_path: Path) -> str:
    """A Python with the fake vLLM, as if of an environment of its own."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={FAKE} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture()
def open_engine(base: ModelSpec, python: str) -> Iterator[Open]:
    opened: list[VllmEngine] = []

    def build(wrong: str = "", places: int = 2, model: str | None = None, guided: bool = False) -> VllmEngine:
        variables = {"FAKE_VLLM": wrong, "FAKE_GUIDED": "1" if guided else ""}
        link = VllmLink(python, {"max_model_len": 512, "model": model}, variables, timeout=60)
        limits = {"max_lora_rank": 8, "max_adapters": places, "max_batch_size": 64, "max_waiting": 64}
        opened.append(VllmEngine(link, byte_tokenizer(), base_fingerprint(base), **limits))
        return opened[-1]

    yield build
    for each in opened:
        each.close()


def ask(first: int, adapter: AdapterRef | None = None, tokens: int = 4, **fields: Any) -> GenerationRequest:
    return GenerationRequest(f"r{next(_NUMBERS)}", (first,), adapter, tokens, **fields)


async def read(engine: VllmEngine, wanted: GenerationRequest) -> list[int]:
    return [token async for piece in engine.generate(wanted) for token in piece.token_ids]


def answers(engine: VllmEngine, *wanted: GenerationRequest) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(read(engine, each) for each in wanted), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_rows_of_base_and_adapters_get_their_own_answers(open_engine: Open, adapters: list[AdapterRef]) -> None:
    engine = open_engine()
    plain, *others = answers(engine, ask(10), *(ask(10, adapter) for adapter in adapters))
    assert plain == [10, 11, 12, 13]
    assert len({tuple(each) for each in others}) == 4
    assert [later - first for first, later in zip(plain, others[0], strict=True)] == [others[0][0] - 10] * 4
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.generated_tokens, stats.prompt_tokens) == (0, 0, 20, 5)
    assert (stats.adapter_loads, stats.adapter_evictions, len(stats.adapters)) == (4, 2, 2)


def test_a_version_that_waits_gets_a_place_from_those_that_are_always_busy(
    open_engine: Open, adapters: list[AdapterRef]
) -> None:
    engine = open_engine(places=1)

    async def keep_busy(done: asyncio.Event) -> None:
        while not done.is_set():
            await asyncio.gather(*(read(engine, ask(1, adapters[0], 30)) for _ in range(2)))

    async def both() -> list[int]:
        done = asyncio.Event()
        busy = [asyncio.create_task(keep_busy(done)) for _ in range(3)]
        while not engine.stats().generated_tokens:
            await asyncio.sleep(0)
        got = await read(engine, ask(1, adapters[1]))
        done.set()
        await asyncio.gather(*busy)
        return got

    assert len(asyncio.run(both())) == 4


def test_figures_are_asked_of_adapters_without_the_engines_lock(
    open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, held = open_engine(), list[bool]()

    class Watched:
        def __enter__(self) -> None:
            held.append(engine._lock.locked())

        def __exit__(self, *_: object) -> None: ...

    # An adapter that arrives takes the engine's lock with the adapters' in hand: the other order stops both for ever.
    monkeypatch.setattr(engine.adapters, "_lock", Watched())
    engine.stats()
    assert held == [False]


def test_a_row_that_is_left_frees_its_adapters_place(open_engine: Open, adapters: list[AdapterRef]) -> None:
    engine = open_engine(places=1)

    async def leave() -> None:
        pieces = engine.generate(ask(1, adapters[0], 400))
        await anext(pieces)
        unread = engine.generate(ask(2, adapters[0], 400))
        engine.cancel("nobody")
        await pieces.aclose()
        await anext(unread)
        await unread.aclose()

    asyncio.run(leave())
    assert len(answers(engine, ask(3, adapters[1]))[0]) == 4
    assert engine.stats().adapters == (adapters[1].version_id,)


@pytest.mark.parametrize(("wrong", "needed"), [("", False), ("mixed", True)])
def test_a_vllm_that_mixes_rows_up_is_given_a_way_around(
    wrong: str, needed: bool, open_engine: Open, base: ModelSpec, adapters: list[AdapterRef]
) -> None:
    engine = open_engine(wrong)
    prove_rows_apart(engine, Path(base.base), slots=3)
    assert (engine.base_number is not None) is needed
    assert answers(engine, ask(20), ask(20, adapters[0]), ask(20))[::2] == [[20, 21, 22, 23]] * 2


def test_a_vllm_that_leaves_adapters_out_is_refused(open_engine: Open, base: ModelSpec) -> None:
    with pytest.raises(DeviceError, match="computes nothing with a LoRA adapter"):
        prove_rows_apart(open_engine("idle"), Path(base.base), slots=3)


def test_a_request_that_vllm_refuses_fails_alone(open_engine: Open) -> None:
    failed, fine = answers(open_engine(), ask(FAIL), ask(7))
    assert isinstance(failed, GenerationFailed)
    assert "this request is refused" in str(failed)
    assert fine == [7, 8, 9, 10]


def test_an_adapter_that_vllm_refuses_leaves_the_others_in_their_places(
    open_engine: Open, adapters: list[AdapterRef]
) -> None:
    failed, fine = answers(open_engine("rank"), ask(7, adapters[0]), ask(7))
    assert isinstance(failed, AdapterError)
    assert "rank is too high" in str(failed)
    assert "more words" not in str(failed)
    assert fine == [7, 8, 9, 10]


def test_the_end_of_vllm_is_told_to_all_and_its_processes_are_gone(
    open_engine: Open, adapters: list[AdapterRef]
) -> None:
    engine = open_engine()
    lost = answers(engine, ask(ENDLESS), ask(DIE), ask(2, adapters[0]))
    assert isinstance(lost[0], EngineDied)
    with pytest.raises(EngineStopped, match="the fake engine died"):
        engine.health()
    with pytest.raises(EngineStopped):
        engine.preload(adapters[0])
    with pytest.raises(ProcessLookupError):
        os.killpg(engine._link.process.pid, 0)


def test_why_vllm_did_not_start_is_told(python: str) -> None:
    with pytest.raises(DeviceError, match=r"(?s)engine core initialization failed.*the fake kernel is missing"):
        VllmLink(python, {"max_model_len": 512}, {"FAKE_VLLM": "start"}, timeout=60)


def test_a_vllm_that_takes_too_long_is_given_up(python: str) -> None:
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"vllm\.start_timeout_seconds"):
        VllmLink(python, {"max_model_len": 512}, {}, timeout=0)
    assert time.monotonic() - started < 30


def test_where_vllm_is_not_installed_says_how(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"not installed for vllm\.python .*pip install vllm"):
        find_vllm(sys.executable)
    with pytest.raises(DeviceError, match="cannot be run"):
        find_vllm(str(tmp_path / "python"))


def test_parameters_in_vllms_words() -> None:
    sampling = Sampling(temperature=0.5, top_k=3, seed=-1, min_p=0.1, repetition_penalty=1.1)
    wanted = ask(1, tokens=9, sampling=sampling, stop=("x",), stop_token_ids=(5,), min_tokens=2, logprobs=0)
    assert vllm_parameters(wanted, room=7) == {
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 3,
        "min_p": 0.1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.1,
        "seed": 2**63 - 1,
        "max_tokens": 7,
        "min_tokens": 2,
        "stop_token_ids": [5],
        "ignore_eos": True,
        "logprobs": 0,
    }


@pytest.mark.parametrize("wrong", [{"temperature": 2.5}, {"presence_penalty": 3.0}, {"frequency_penalty": -2.1}])
def test_what_vllm_does_not_take_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=f"{next(iter(wrong))}: found"):
        vllm_parameters(ask(1, sampling=Sampling(**wrong)), room=4)


@pytest.mark.skipif(importlib.util.find_spec("llguidance") is None, reason="needs didact[grammar]")
def test_grammars_are_passed_on(open_engine: Open, base: ModelSpec) -> None:
    engine, plain = open_engine(model=base.base, guided=True), open_engine(guided=True)
    assert (engine.takes_grammars, plain.takes_grammars) == (True, False)
    grammar = lark.one_of(("yes",), "guided_choice")

    async def both() -> list:
        asked = (ask(5, grammar=grammar), ask(5), ask(5, grammar=replace(grammar, rules="refused")))
        return await asyncio.gather(*(read(engine, each) for each in asked), return_exceptions=True)

    held, free, refused = asyncio.run(both())
    assert (held, len(free)) == ([256], 4)
    assert asyncio.run(read(engine, ask(5, priority=7)))[0] == 7  # passed on
    assert isinstance(refused, GrammarError)
    assert str(refused) == "guided_choice: Grammar error: no rule of that name"
    with pytest.raises(SpecError, match="min_tokens: found 2 beside guided_choice"):
        asyncio.run(read(engine, ask(5, grammar=grammar, min_tokens=2)))
    with pytest.raises(GrammarsMissing, match=r"^guided_choice: .*install llguidance there"):
        asyncio.run(read(plain, ask(5, grammar=grammar)))
