"""What every engine does alike; `make test-vllm` asks vLLM the same.

One engine serves the whole file, since starting vLLM takes a minute: the last test ends it.
"""

import asyncio
import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.errors import AdapterError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import load_base
from didact.serving import (
    AdapterRef,
    DeadlineExceeded,
    Delta,
    EngineBusy,
    EngineDied,
    EngineStopped,
    GenerationFailed,
    GenerationRequest,
    PromptTooLong,
    Sampling,
)
from didact.serving.engine.grammar import lark
from didact.serving.replica.prompt_scores import prompt_logprobs
from tests.fakes.engine_contract import CONTEXT, ENGINES, PLACES, ROWS, WAITING, Contract, open_contract

pytestmark = pytest.mark.timeout(900)
(A,) = byte_tokenizer().encode("A", add_special_tokens=False)
ONLY_A = Sampling(logit_bias=((A, 100.0),))
PROMPTS = [tuple(range(40, 40 + length)) for length in (3, 11, 1, 7, 19)]
_NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=ENGINES)
def contract(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contract]:
    opened = open_contract(request.param, tmp_path_factory.mktemp("contract"))
    yield opened
    opened.engine.close()


def ask(prompt: tuple[int, ...], adapter: AdapterRef | None = None, tokens: int = 12, **fields: Any) -> Any:
    return GenerationRequest(f"request-{next(_NUMBERS)}", prompt, adapter, tokens, **fields)


async def read(contract: Contract, wanted: GenerationRequest) -> list[Delta]:
    return [delta async for delta in contract.engine.generate(wanted)]


def answers(contract: Contract, *wanted: GenerationRequest) -> list[Any]:
    """Pieces of each answer, asked for at once, or the error."""

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(read(contract, each) for each in wanted), return_exceptions=True)

    return asyncio.run(all_of_them())


def tokens_of(pieces: Any) -> list[int]:
    if isinstance(pieces, BaseException):
        raise pieces
    return [token for piece in pieces for token in piece.token_ids]


def text_of(pieces: list[Delta]) -> str:
    return "".join(piece.text for piece in pieces)


def test_an_answer_fits_its_grammar(contract: Contract) -> None:
    if not contract.engine.takes_grammars:
        pytest.skip("needs didact[grammar]")
    grammar = lark.matching("[ab]{6}", "guided_regex")
    asked = [
        ask(PROMPTS[0], adapter, 20, grammar=grammar, sampling=Sampling(temperature=1.0, seed=seed))
        for seed, adapter in enumerate((None, contract.adapters[0], None))
    ]
    free = ask(PROMPTS[1])

    async def all_of_them() -> list[list[Delta]]:
        return await asyncio.gather(*(read(contract, each) for each in (*asked, free)))

    *held, last = asyncio.run(all_of_them())
    for deltas in held:
        assert re.fullmatch("[ab]{6}", "".join(delta.text for delta in deltas))
        assert deltas[-1].finish_reason == "stop"
    assert [token for delta in last for token in delta.token_ids] == contract.oracle(free)


def test_greedy_answers_equal_generate_in_mixed_company(contract: Contract) -> None:
    wanted = [ask(prompt, adapter) for prompt in PROMPTS[:3] for adapter in (None, *contract.adapters)]
    got = [tokens_of(each) for each in answers(contract, *wanted)]
    assert got == [contract.oracle(each) for each in wanted]
    assert len({tuple(tokens) for tokens in got}) >= len(wanted) - 2  # base and adapters answer differently
    stats = contract.engine.stats()
    assert stats.adapter_evictions >= 1
    assert len(stats.adapters) <= PLACES
    assert (stats.num_running, stats.num_waiting) == (0, 0)


def test_prompts_that_begin_alike_keep_their_versions_answers(contract: Contract) -> None:
    long = tuple(40 + step % 200 for step in range(300))
    wanted = [ask((*long, end), adapter, 6) for end in (50, 51) for adapter in (None, *contract.adapters[:2])]
    before = contract.engine.stats().cached_prompt_tokens
    got = [tokens_of(answers(contract, each)[0]) for each in wanted]
    assert got == [contract.oracle(each) for each in wanted]
    assert contract.engine.stats().cached_prompt_tokens - before >= 3 * 128


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        ({"stop_token_ids": (A,)}, [A]),
        ({"stop_token_ids": (A,), "min_tokens": 5}, None),  # another token has to come instead, five times
        ({"stop": ("A",)}, [A]),
        ({"stop": ("A",), "min_tokens": 5}, [A] * 6),
        ({"stop": ("AAA",), "min_tokens": 2}, [A] * 5),
        ({"stop": ("AAA",)}, [A] * 3),
    ],
)
def test_answers_end_where_they_should(contract: Contract, stops: dict[str, Any], expected: list[int] | None) -> None:
    (pieces,) = answers(contract, ask(PROMPTS[0], sampling=ONLY_A, **stops))
    tokens = tokens_of(pieces)
    if expected is None:
        assert A not in tokens[:5]
        assert tokens[5:] == [A]
    else:
        assert tokens == expected
        assert text_of(pieces) == "A" * (stops.get("min_tokens", 0) if "stop" in stops else 0)
    assert pieces[-1].finish_reason == "stop"
    assert pieces[-1].stop_text == (stops["stop"][0] if "stop" in stops else None)


def test_an_answer_comes_token_by_token_and_its_text_is_that_of_the_tokens(contract: Contract) -> None:
    (pieces,) = answers(contract, ask(PROMPTS[1], tokens=30))
    tokens = tokens_of(pieces)
    assert [len(piece.token_ids) for piece in pieces] == [1] * 30
    assert [piece.finish_reason for piece in pieces] == [None] * 29 + ["length"]
    assert text_of(pieces) == byte_tokenizer().decode(tokens, skip_special_tokens=True)


def test_an_answer_ends_where_the_context_does(contract: Contract) -> None:
    (pieces,) = answers(contract, ask(tuple([40] * (CONTEXT - 4)), tokens=100))
    assert len(tokens_of(pieces)) == 4
    assert pieces[-1].finish_reason == "length"


@pytest.mark.parametrize("place", [None, 0], ids=["base", "adapter"])
def test_logprobs_are_the_models_own(contract: Contract, place: int | None) -> None:
    adapter = None if place is None else contract.adapters[place]
    sampling = Sampling(temperature=1.5, seed=4, logit_bias=((A, 3.0),), repetition_penalty=1.2)
    wanted = ask(PROMPTS[1], adapter, 6, logprobs=3, sampling=sampling)
    (pieces,) = answers(contract, wanted)
    tokens = tokens_of(pieces)
    found = [each for piece in pieces for each in piece.logprobs]
    assert [each.token_id for each in found] == tokens
    if adapter is None:
        with torch.inference_mode():
            logits = load_base(contract.base)(input_ids=torch.tensor([[*wanted.prompt_ids, *tokens]])).logits[0]
        expected = logits[len(wanted.prompt_ids) - 1 : -1].log_softmax(-1)
        for each, row in zip(found, expected, strict=True):
            assert each.logprob == pytest.approx(float(row[each.token_id]), abs=1e-3)
            assert [token for token, _ in each.top] == row.topk(3).indices.tolist()
    (bare,) = answers(contract, replace(wanted, logprobs=None))
    assert bare[0].logprobs == ()
    (chosen,) = answers(contract, replace(wanted, logprobs=0))
    assert [(each.token_id, each.top) for piece in chosen for each in piece.logprobs] == [(t, ()) for t in tokens]


def test_the_logprobs_of_a_prompt_are_the_models_own(contract: Contract) -> None:
    (found,) = asyncio.run(asyncio.wait_for(_scores(contract, PROMPTS[4]), 60))
    with torch.inference_mode():
        logits = load_base(contract.base)(input_ids=torch.tensor([PROMPTS[4]])).logits[0]
    expected = logits[:-1].log_softmax(-1)
    assert [each.token_id for each in found] == list(PROMPTS[4][1:])
    for each, row in zip(found, expected, strict=True):
        assert each.logprob == pytest.approx(float(row[each.token_id]), abs=1e-3)
        assert [token for token, _ in each.top] == row.topk(2).indices.tolist()


async def _scores(contract: Contract, prompt: tuple[int, ...]) -> list[Any]:
    return [await prompt_logprobs(contract.engine, None, prompt, 2)]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2.0, top_k=1, seed=1),
        Sampling(temperature=2.0, top_p=1e-6, seed=1),
        Sampling(temperature=2.0, min_p=1.0, seed=1),
        Sampling(temperature=1e-7),
    ],
    ids=["top_k", "top_p", "min_p", "temperature"],
)
def test_what_leaves_one_token_is_greedy(contract: Contract, sampling: Sampling) -> None:
    wanted = ask(PROMPTS[3], contract.adapters[0], sampling=sampling)
    assert tokens_of(answers(contract, wanted)[0]) == contract.oracle(wanted)


def test_a_seed_repeats_alone_and_in_company(contract: Contract) -> None:
    def drawn(seed: int) -> GenerationRequest:
        return ask(PROMPTS[1], tokens=20, sampling=Sampling(temperature=1.0, seed=seed))

    alone = tokens_of(answers(contract, drawn(-1))[0])
    company = answers(contract, ask(PROMPTS[2], contract.adapters[0]), drawn(-1), ask(PROMPTS[3]), drawn(8))
    assert tokens_of(company[1]) == alone
    assert tokens_of(company[3]) != alone


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_penalties_are_taken_from_tokens_of_the_answer(contract: Contract, penalty: str) -> None:
    likely = tuple((token, 60.0) for token in range(A, A + 10))
    free, held = answers(
        contract,
        ask(PROMPTS[4], sampling=Sampling(logit_bias=likely)),
        ask(PROMPTS[4], sampling=Sampling(logit_bias=likely, **{penalty: 2.0})),
    )
    assert {*tokens_of(free), *tokens_of(held)} <= set(range(A, A + 10))
    assert len(set(tokens_of(held))) > len(set(tokens_of(free)))


def test_repetition_penalty_counts_prompt_and_answer(contract: Contract) -> None:
    prompt = tuple(range(120))
    free, held = answers(
        contract, ask(prompt, tokens=30), ask(prompt, tokens=30, sampling=Sampling(repetition_penalty=1e6))
    )
    assert len({*prompt, *tokens_of(free)}) < 150
    assert len({*prompt, *tokens_of(held)}) == 150


def test_a_deadline_ends_a_request(contract: Contract) -> None:
    late, fine = answers(
        contract, ask(PROMPTS[0], tokens=900, deadline=time.monotonic() - 1), ask(PROMPTS[1], tokens=4)
    )
    assert isinstance(late, DeadlineExceeded)
    assert len(tokens_of(fine)) == 4


def test_a_full_queue_and_long_prompts_are_refused_at_once(contract: Contract) -> None:
    got = answers(contract, *(ask(PROMPTS[0], tokens=20) for _ in range(3 * (ROWS + WAITING))))
    assert any(isinstance(each, EngineBusy) for each in got)
    assert sum(isinstance(each, list) for each in got) >= WAITING
    (too_long,) = answers(contract, ask(tuple([40] * CONTEXT)))
    assert isinstance(too_long, PromptTooLong)
    assert str(CONTEXT) in str(too_long)


@pytest.mark.parametrize("way", ["close", "cancel"])
def test_a_request_that_nobody_waits_for_is_dropped(contract: Contract, way: str) -> None:
    wanted = ask(PROMPTS[0], contract.adapters[0], 900)

    async def leave() -> None:
        pieces = contract.engine.generate(wanted)
        await anext(pieces)
        if way == "cancel":
            contract.engine.cancel(wanted.request_id)
        await pieces.aclose()
        while contract.engine.stats().num_running + contract.engine.stats().num_waiting:
            await asyncio.sleep(0)

    before = contract.engine.stats().generated_tokens
    asyncio.run(leave())
    contract.engine.cancel("nobody")
    tokens_of(answers(contract, ask(PROMPTS[1], tokens=8))[0])
    assert contract.engine.stats().generated_tokens - before < 450


def test_more_versions_than_places_all_get_their_turn(contract: Contract) -> None:
    wanted = [ask(PROMPTS[3], adapter, 8) for _ in range(3) for adapter in contract.adapters]
    got = [tokens_of(each) for each in answers(contract, *wanted)]
    assert got == [contract.oracle(each) for each in wanted]


def test_bad_adapters_cost_nobody_an_answer(contract: Contract, tmp_path: Path) -> None:
    for each in (damaged := tmp_path / "damaged", tmp_path / "missing"):
        each.mkdir()
    for file in contract.adapters[0].folder.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = bytearray((damaged / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 0xFF
    (damaged / "adapter_model.safetensors").write_bytes(weights)
    bad = [AdapterRef(f"{folder.name}:1#000000000000", folder) for folder in (damaged, tmp_path / "missing")]
    good = [ask(PROMPTS[4], adapter) for adapter in (None, contract.adapters[1])]
    got = answers(contract, ask(PROMPTS[0], bad[0]), *good, ask(PROMPTS[0], bad[1]))
    assert isinstance(got[0], AdapterError)
    assert isinstance(got[-1], AdapterError)
    assert [tokens_of(each) for each in got[1:3]] == [contract.oracle(each) for each in good]
    with pytest.raises(AdapterError):
        contract.engine.preload(bad[0]).result()


def test_a_version_can_be_in_memory_before_it_is_asked_for(contract: Contract) -> None:
    for adapter in contract.adapters:
        contract.engine.preload(adapter).result()
    loads = contract.engine.stats().adapter_loads
    assert contract.engine.stats().adapters[-1] == contract.adapters[-1].version_id
    tokens_of(answers(contract, ask(PROMPTS[0], contract.adapters[-1]))[0])
    assert contract.engine.stats().adapter_loads == loads


def test_facts_of_the_base(contract: Contract) -> None:
    assert (contract.engine.context_length, contract.engine.vocabulary_size) == (CONTEXT, 272)
    contract.engine.health()


def test_an_engine_that_ends_fails_what_is_unfinished_and_takes_no_more(contract: Contract) -> None:
    async def end_in_the_middle() -> type[Exception]:
        pieces = contract.engine.generate(ask(PROMPTS[0], tokens=900))
        await anext(pieces)
        threading.Thread(target=end).start()
        with pytest.raises(GenerationFailed) as failed:
            async for _ in pieces:
                pass
        return failed.type

    def end() -> None:
        if contract.name == "embedded":
            return contract.engine.close()
        return kill_core(contract)

    assert asyncio.run(end_in_the_middle()) is (GenerationFailed if contract.name == "embedded" else EngineDied)
    with pytest.raises(EngineStopped):
        contract.engine.health()
    (refused,) = answers(contract, ask(PROMPTS[0]))
    assert isinstance(refused, EngineStopped)
    (refused,) = answers(contract, ask(PROMPTS[0], contract.adapters[0]))
    assert isinstance(refused, EngineStopped)


def kill_core(contract: Contract) -> None:
    """End the process in which vLLM computes, and not the one that this engine speaks with."""
    (link,) = [value for value in vars(contract.engine).values() if hasattr(value, "process")]
    group = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(link.process.pid)], capture_output=True, text=True, check=True
    )
    for pid in group.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
