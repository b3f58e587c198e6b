"""Requests that would end a server, evade its limits, or get an answer that is not what was asked for."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine, GrammarError
from didact.serving.engine.grammar import lark
from didact.serving.engine.grammar.matcher import Grammars
from didact.serving.engine.grammar.rehearsal import Rehearsal
from didact.serving.replica.adapter_store import AdapterStore
from didact.serving.replica.worker import Worker
from tests.fakes.adapters import TINY_BASE
from tests.fakes.models import tiny_model
from tests.fakes.registry import ShelfRegistry
from tests.serving.test_gateway import HELLO
from tests.serving.test_grammars import needs_llguidance

COMPLETE = {"model": "tiny", "prompt": "x", "max_tokens": 4, "temperature": 0}
LEAST = -(2**63)


def refused(client: TestClient, path: str, **changes: object) -> dict:
    answer = client.post(path, json={**(HELLO if "chat" in path else COMPLETE), **changes})
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


@needs_llguidance
@pytest.mark.parametrize("least", [LEAST, LEAST + 1, -(2**70), 10**20])
def test_bounds_that_end_the_library_or_are_taken_for_others_are_refused(client: TestClient, least: int) -> None:
    schema = {"type": "array", "items": {"type": "integer", "minimum": least, "maximum": least}}
    error = refused(client, "/v1/completions", guided_json=schema)
    assert error["code"] == "invalid_grammar" and "expected a number from -2^53 to 2^53" in error["message"]
    fine = client.post("/v1/completions", json={**COMPLETE, "guided_json": {"const": 7}})
    assert fine.json()["choices"][0]["text"] == "7"


@needs_llguidance
@pytest.mark.parametrize(
    "grammar",
    [
        f'start: %json {{"type": "integer", "minimum": {LEAST}, "maximum": {LEAST}}}',
        "start: r0\n" + "".join(f"r{number}: r{number + 1}\n" for number in range(4500)) + 'r4500: "a"\n',
        "start: A0\n" + "".join(f"A{number}: A{number + 1}\n" for number in range(4500)) + 'A4500: "a"\n',
    ],
    ids=["bounds", "rules", "terminals"],
)
def test_a_grammar_that_ends_the_library_ends_no_server(client: TestClient, grammar: str) -> None:
    error = refused(client, "/v1/completions", guided_grammar=grammar)
    assert error["code"] == "invalid_grammar" and "compiling it fails" in error["message"]
    assert client.post("/v1/completions", json={**COMPLETE, "guided_choice": ["yes"]}).status_code == 200


@needs_llguidance
def test_a_grammar_that_takes_too_long_keeps_no_thread() -> None:
    slow = {"allOf": [{"type": "string", "pattern": f"a{{{number}}}"} for number in range(400)]}
    grammars = Grammars(byte_tokenizer(), 272, seconds=1.0)

    async def ask(grammar: lark.Grammar) -> str:
        try:
            await grammars.constraint(grammar)
        except GrammarError as error:
            return str(error)
        return ""

    async def all_of_them() -> list[str]:
        await asyncio.gather(*(ask(lark.json_of({**slow, "title": str(number)}, "f")) for number in range(2)))
        return [await ask(lark.one_of(("yes",), "f"))]

    try:
        assert asyncio.run(all_of_them()) == [""]
    finally:
        grammars.close()


def test_a_rehearsal_begins_anew_after_what_ended_it() -> None:
    pytest.importorskip("llguidance")
    rehearsal = Rehearsal(20.0)
    try:
        bad = f'start: %json {{"type": "integer", "minimum": {LEAST}, "maximum": {LEAST}}}'
        assert [rehearsal.refusal(text, {}) for text in ('start: "a"', bad, 'start: "b"', "no grammar")] == [
            *(None, "it cannot be followed: compiling it fails", None, None)
        ]
    finally:
        rehearsal.close()


@needs_llguidance
@pytest.mark.parametrize(
    "form",
    [
        {"guided_choice": ["<|im_end|>"]},
        {"guided_json": {"enum": ["a<|im_end|>"]}},
        {"guided_grammar": 'start: "<|im_end|>"'},
    ],
)
def test_a_form_that_holds_the_text_of_a_token_that_ends_answers_is_refused(client: TestClient, form: dict) -> None:
    """Tokenizers read it as that token, so the answer would end there, and be no such form."""
    assert byte_tokenizer().eos_token == "<|im_end|>"
    error = refused(client, "/v1/completions", **form)
    assert error["code"] == "invalid_grammar" and "holds <|im_end|>, the text of a token" in error["message"]


def test_scoring_has_the_limits_of_generation(tmp_path: Path, serve_worker: Callable[..., TestClient]) -> None:
    tokenizer = byte_tokenizer()
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), tokenizer)
    worker = Worker(engine, tokenizer, AdapterStore(ShelfRegistry(), tmp_path), TINY_BASE, "tiny", max_waiting=2)
    score = {"model": "tiny", "echo": True, "logprobs": 1, "max_tokens": 0, "prompt": "abc"}
    try:
        with serve_worker(worker) as client:
            long = client.post("/v1/completions", json={**score, "prompt": [97] * (engine.context_length + 1)})
            assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
            whole = client.post("/v1/completions", json={**score, "prompt": [97] * engine.context_length})
            assert whole.json()["usage"]["prompt_tokens"] == engine.context_length
            before = client.get("/metrics").text
            held = engine.borrow(None, lambda model: time.sleep(1.0))
            with ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(lambda _: client.post("/v1/completions", json=score).status_code, range(6)))
            held.result()
            assert sorted(set(answers)) == [200, 429] and answers.count(200) == 2
            assert "vllm:prompt_tokens_total" in before
        with serve_worker(worker, request_timeout_seconds=0.2) as client:
            held = engine.borrow(None, lambda model: time.sleep(1.0))
            late = client.post("/v1/completions", json=score)
            assert late.status_code in (408, 504), late.text
            held.result()
    finally:
        worker.close()


def test_numbers_of_a_broken_model_are_no_probabilities(
    tmp_path: Path, serve_worker: Callable[..., TestClient]
) -> None:
    model, tokenizer = tiny_model(), byte_tokenizer()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), tokenizer)
    worker = Worker(engine, tokenizer, AdapterStore(ShelfRegistry(), tmp_path), TINY_BASE, "tiny")
    score = {"model": "tiny", "echo": True, "logprobs": 1, "max_tokens": 0, "prompt": "abc"}
    try:
        with serve_worker(worker) as client:
            for stream in (False, True):
                answer = client.post("/v1/completions", json={**score, "stream": stream})
                assert "NaN" not in answer.text and "no finite numbers" in answer.text
    finally:
        worker.close()


@pytest.mark.parametrize("ids", [[100_000], [2**63]])
def test_stop_tokens_that_are_none_are_refused(client: TestClient, ids: list[int]) -> None:
    for changes in ({"min_tokens": 2}, {}):
        assert "not in the vocabulary" in refused(client, "/v1/completions", stop_token_ids=ids, **changes)["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [('{"a": "\\ud800"}', "surrogate"), ('{"a": ' + "[" * 900 + "]" * 900 + "}", "too deep")],
)
def test_arguments_in_a_chats_history_that_no_template_can_write(
    client: TestClient, arguments: str, words: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": arguments}}
    turns = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "2"},
        {"role": "user", "content": "so?"},
    ]
    answer = client.post("/v1/chat/completions", json={**HELLO, "messages": turns})
    assert answer.status_code == 400, answer.text


def test_the_largest_seed_has_room_for_several_choices(client: TestClient) -> None:
    body = {**COMPLETE, "temperature": 2, "seed": 2**63 - 1, "n": 2, "return_token_ids": True}
    first, second = client.post("/v1/completions", json=body).json()["choices"]
    assert first["token_ids"] != second["token_ids"]


def test_an_echo_begins_with_the_bytes_of_its_first_token(client: TestClient) -> None:
    body = {**COMPLETE, "prompt": "\U0001f600 hi", "echo": True, "logprobs": 0, "max_tokens": 0}
    told = client.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    assert told["tokens"][:5] == ["bytes:\\xf0", "bytes:\\x9f", "bytes:\\x98", "bytes:\\x80", " "]
    assert told["text_offset"][4:] == [1, 2, 3] and told["token_logprobs"][0] is None
