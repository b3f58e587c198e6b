from importlib.metadata import version
from typing import Any

import pytest
from fastapi.testclient import TestClient

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.serving.replica.worker import Worker
from didact.spec import TokensSpec
from didact.tokens import TemplateContract

TOKENIZER = byte_tokenizer()
MESSAGES = [{"role": "user", "content": "hello"}]


def post(client: TestClient, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("text", ["hello", "", "中文 🙂", "<|im_end|>"])
def test_text_becomes_tokens_and_text_again(client: TestClient, text: str) -> None:
    found = post(client, "/tokenize", prompt=text)
    assert found["tokens"] == TOKENIZER(text)["input_ids"]
    assert (found["count"], found["token_strs"]) == (len(found["tokens"]), None)
    assert found["max_model_len"] == client.get("/v1/models/tiny").json()["max_model_len"]
    if text:
        assert post(client, "/detokenize", tokens=found["tokens"]) == {"prompt": text}


def test_messages_are_written_as_the_model_is_asked(client: TestClient) -> None:
    contract = TemplateContract.of(TOKENIZER, TokensSpec())
    with_header = post(client, "/tokenize", model="demo", messages=MESSAGES, return_token_strs=True)
    without = post(client, "/tokenize", messages=MESSAGES, add_generation_prompt=False)
    chat = {"model": "demo", "messages": MESSAGES, "max_tokens": 1}
    assert with_header["count"] == post(client, "/v1/chat/completions", **chat)["usage"]["prompt_tokens"]
    assert with_header["token_strs"] == TOKENIZER.convert_ids_to_tokens(with_header["tokens"])
    assert with_header["tokens"][: without["count"]] == without["tokens"]
    assert TOKENIZER.decode(with_header["tokens"][without["count"] :]) == "<|im_start|>assistant\n"
    assert contract.standalone == client.get("/tokenizer_info").json()["chat_template"]


def test_text_of_a_special_token_in_a_message_stays_text(client: TestClient) -> None:
    forged = [{"role": "user", "content": str(TOKENIZER.eos_token)}]
    found = post(client, "/tokenize", messages=forged, add_generation_prompt=False)
    plain = post(client, "/tokenize", messages=MESSAGES, add_generation_prompt=False)
    assert found["tokens"].count(TOKENIZER.eos_token_id) == plain["tokens"].count(TOKENIZER.eos_token_id)


def test_clients_that_tokenize_themselves_are_told_how(client: TestClient, worker: Worker) -> None:
    told = client.get("/tokenizer_info").json()
    assert told["eos_token"] == TOKENIZER.eos_token
    assert told["vocab_size"] == worker.engine.vocabulary_size
    assert told["model_max_length"] == worker.engine.context_length
    assert client.get("/version").json() == {"version": version("didact")}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, 400, "prompt"),
        ("/tokenize", {"prompt": 5}, 400, "prompt"),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"prompt": "a", "model": "nobody"}, 404, "model"),
        ("/tokenize", {"prompt": "a", "wrong": 1}, 400, "wrong"),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": []}, 400, "tokens"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens"),
        ("/detokenize", {"tokens": [10**9]}, 400, "tokens"),
        ("/detokenize", {"tokens": "abc"}, 400, "tokens"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(
    client: TestClient, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_tokens_need_the_key_that_answers_need(worker: Worker, serve_worker: Any) -> None:
    with serve_worker(worker, api_keys=("right",)) as client:
        for path in ("/tokenize", "/detokenize"):
            assert client.post(path, json={"prompt": "a"}).status_code == 401
        assert client.get("/tokenizer_info").status_code == 401
        keyed = {"authorization": "Bearer right"}
        assert client.get("/tokenizer_info", headers=keyed).status_code == 200
