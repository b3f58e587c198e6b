"""Probabilities, echoes and token ids over HTTP, in OpenAI's and vLLM's shapes, against the model's own logits."""

import asyncio
from dataclasses import replace
from pathlib import Path

import openai
import pytest
import torch
from fastapi.testclient import TestClient
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving.engine.protocol import Sampling, TokenLogprob
from didact.serving.replica.backend import Ask, Event
from didact.serving.replica.pieces import joined
from didact.serving.replica.token_words import (
    TokenWord,
    TokenWords,
    Word,
    WordedDelta,
    offsets_of,
    texts_of,
)
from didact.serving.replica.worker import Worker
from tests.fakes.adapters import TINY_BASE
from tests.fakes.models import tiny_model
from tests.serving.test_gateway import HELLO, events

LETTERS = {str(token): 100 for token in byte_tokenizer()("abcdefgh")["input_ids"]}
"""The random model answers with any bytes; so biased, with letters."""

COMPLETE = {"model": "tiny", "temperature": 0, "prompt": "abc", "max_tokens": 5, "logit_bias": LETTERS}


def complete(client: TestClient, **changes: object) -> dict:
    answer = client.post("/v1/completions", json={**COMPLETE, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def own_logprobs(ids: list[int], folder: Path | None = None) -> torch.Tensor:
    """[tokens - 1, vocabulary]: of each next token."""
    host = AdapterHost(tiny_model(), TINY_BASE)
    if folder:
        host.load("one", folder)
    with torch.inference_mode(), host.active("one" if folder else None) as model:
        return model(input_ids=torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)


def test_a_chat_tells_how_likely_its_tokens_were(client: TestClient) -> None:
    body = {**HELLO, "logprobs": True, "top_logprobs": 3, "max_tokens": 6, "return_token_ids": True}
    body["logit_bias"] = LETTERS
    answer = client.post("/v1/chat/completions", json=body).json()
    (choice,) = answer["choices"]
    content = choice["logprobs"]["content"]
    prompt, ids = answer["prompt_token_ids"], choice["token_ids"]
    assert choice["logprobs"]["refusal"] is None
    assert bytes(byte for each in content for byte in each["bytes"]).decode() == choice["message"]["content"]
    own = own_logprobs([*prompt, *ids])[len(prompt) - 1 :]
    for each, token, row in zip(content, ids, own, strict=False):
        assert each["logprob"] == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(3).values.tolist()
        assert [top["logprob"] for top in each["top_logprobs"]] == pytest.approx(best, abs=1e-4)
    *chunks, _ = events(client, **body)
    streamed = [each for chunk in chunks for each in (chunk["choices"][0]["logprobs"] or {}).get("content", [])]
    assert [each["token"] for each in streamed] == [each["token"] for each in content]
    assert [token for chunk in chunks for token in chunk["choices"][0].get("token_ids", [])] == ids
    assert chunks[0]["prompt_token_ids"] == prompt


def test_the_token_that_ends_an_answer_has_no_place_among_its_words(client: TestClient) -> None:
    end = str(byte_tokenizer().eos_token_id)
    body = {**HELLO, "logprobs": True, "logit_bias": {end: 100}}
    (choice,) = client.post("/v1/chat/completions", json=body).json()["choices"]
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", {"content": [], "refusal": None})


def test_the_official_client_reads_them(client: TestClient) -> None:
    official = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client)
    chat = official.chat.completions.create(**HELLO, logprobs=True, top_logprobs=2, max_tokens=3)
    assert chat.choices[0].logprobs is not None and chat.choices[0].logprobs.content is not None
    assert len(chat.choices[0].logprobs.content[0].top_logprobs) == 2
    text = official.completions.create(**{**COMPLETE, "logprobs": 2, "echo": True})
    assert text.choices[0].logprobs is not None and text.choices[0].logprobs.tokens is not None
    assert "".join(text.choices[0].logprobs.tokens) == text.choices[0].text


@pytest.mark.parametrize("length", [3, 300])
@pytest.mark.parametrize("model", ["tiny", "demo"])
def test_an_echo_tells_how_likely_the_prompt_is(
    client: TestClient, adapters: list[Path], model: str, length: int
) -> None:
    prompt = ("abcdefghij" * 30)[:length]
    choice = complete(client, model=model, prompt=prompt, echo=True, logprobs=2, max_tokens=4)
    told = choice["logprobs"]
    assert choice["text"].startswith(prompt) and len(choice["text"]) == length + 4
    assert "".join(told["tokens"]) == choice["text"]
    assert told["text_offset"] == list(range(length + 4))
    assert (told["token_logprobs"][0], told["top_logprobs"][0]) == (None, None)
    ids = byte_tokenizer()(choice["text"])["input_ids"]
    own = own_logprobs(ids, adapters[0] if model == "demo" else None)
    chosen = own[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].tolist()
    assert told["token_logprobs"][1:] == pytest.approx(chosen, abs=1e-4)
    best = own.topk(1).values[:, 0].tolist()
    assert [max(top.values()) for top in told["top_logprobs"][1:]] == pytest.approx(best, abs=1e-4)
    assert all(2 <= len(top) <= 3 for top in told["top_logprobs"][1:])


def test_an_echo_alone_generates_nothing(client: TestClient) -> None:
    choice = complete(client, echo=True, logprobs=1, max_tokens=0)
    assert (choice["text"], choice["finish_reason"]) == ("abc", "length")
    assert len(choice["logprobs"]["tokens"]) == 3
    refused = client.post("/v1/completions", json={**COMPLETE, "max_tokens": 0})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_tokens")


def test_streamed_completions_are_the_whole_ones(client: TestClient) -> None:
    body = {**COMPLETE, "echo": True, "logprobs": 1, "return_token_ids": True, "stop": ["\x00\x00"]}
    whole = complete(client, **body)
    *chunks, _ = events(client, "/v1/completions", **body)
    pieces = [chunk["choices"][0] for chunk in chunks]
    assert "".join(piece["text"] for piece in pieces) == whole["text"]
    for field in ("tokens", "token_logprobs", "text_offset"):
        joined = [each for piece in pieces if piece["logprobs"] for each in piece["logprobs"][field]]
        assert joined == (whole["logprobs"][field] if field != "token_logprobs" else joined)
        assert len(joined) == len(whole["logprobs"][field])
    assert whole["prompt_token_ids"] == pieces[0]["prompt_token_ids"] == byte_tokenizer()("abc")["input_ids"]
    assert [token for piece in pieces for token in piece.get("token_ids", [])] == whole["token_ids"]


def test_without_being_asked_nothing_of_it_is_told(client: TestClient) -> None:
    choice = complete(client)
    assert choice["logprobs"] is None
    assert not {"token_ids", "prompt_token_ids"} & set(choice)


def test_tokens_can_be_told_as_numbers(client: TestClient) -> None:
    choice = complete(client, logprobs=0, return_tokens_as_token_ids=True, return_token_ids=True)
    assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in choice["token_ids"]]


def test_an_answer_that_nobody_reads_along_comes_in_two_pieces_at_most(worker: Worker) -> None:
    async def events(ask: Ask) -> list[Event]:
        return [event async for event in worker.ask(ask)]

    bias = Sampling(logit_bias=tuple((int(token), float(value)) for token, value in LETTERS.items()))
    ask = Ask("1", "abc", None, max_new_tokens=6, timeout_seconds=60, sampling=bias, logprobs=1)
    _, *told = asyncio.run(events(ask))
    _, *whole = asyncio.run(events(replace(ask, request_id="2", whole=True)))
    # Tokens that came while nobody looked cross together, in either way, so how many pieces there are is chance's.
    assert 1 <= len(whole) <= 2 and len(told) <= 6 and all(isinstance(piece, WordedDelta) for piece in (*told, *whole))
    answer = joined(whole)
    assert isinstance(answer, WordedDelta) and len(answer.words) == len(answer.token_ids) == 6
    assert replace(answer, queued_seconds=None) == replace(joined(told), queued_seconds=None)
    assert answer.finish_reason == "length" and answer.text == "".join(piece.text for piece in told)


def test_bytes_that_are_no_character_are_told_as_bytes() -> None:
    words = TokenWords(byte_tokenizer())
    euro = byte_tokenizer()("€")["input_ids"]
    found = [words.of(TokenLogprob(token, -1.0, ())).chosen for token in euro]
    assert b"".join(word.content for word in found) == "€".encode()
    assert found[0].text == "bytes:\\xe2"
    assert words.content(byte_tokenizer().eos_token_id).decode() == byte_tokenizer().eos_token
    assert Word(1, b" a", 0.0).text == " a"


def test_blanks_and_bytes_of_sentencepiece() -> None:
    vocabulary = {"<unk>": 0, "\u2581one": 1, "\u2581two": 2, "<0xC3>": 3, "<0xA9>": 4, "\u2581": 5}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words = TokenWords(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    assert b"".join(map(words.content, [1, 2, 5, 3, 4])).decode() == " one two é"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("content", ["plain", "é€😀 ende", "\u20ac\u20ac"])
@pytest.mark.parametrize("broken", [b"", b"\xe2\x82", b"\xff\xfe", b"\xf0\x9f\x98"])
def test_offsets_are_the_lengths_of_the_texts_before(content: str, broken: bytes, size: int) -> None:
    whole = content.encode() + broken + content.encode()
    words = [TokenWord(Word(1, whole[at : at + size], 0.0), ()) for at in range(0, len(whole), size)]
    assert list(offsets_of(words)) == [len(texts_of(words[:number])) for number in range(len(words))]
