from fastapi.testclient import TestClient

from didact.gpu_proof.tokenizer import byte_tokenizer

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


def chat(client: TestClient, **changes: object) -> dict:
    answer = client.post("/v1/chat/completions", json={**HELLO, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_the_engine_samples_by_can_be_asked_for(client: TestClient) -> None:
    def said(**changes: object) -> tuple[str, str]:
        choice = chat(client, max_tokens=6, **changes)["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]

    letter = byte_tokenizer()("A")["input_ids"][0]
    bias = {str(letter): 100}
    assert said(logit_bias=bias) == ("A" * 6, "length")
    assert "A" in said(logit_bias={**bias, str(letter + 1): 100}, repetition_penalty=1.5, temperature=0)[0]
    assert said(logit_bias=bias, no_repeat_ngram_size=1)[0].count("A") == 1
    assert said(min_p=1.0, temperature=2.0, seed=1) == said(temperature=0)
    assert said(logit_bias=bias, stop=["AA"]) == ("", "stop")
    assert said(logit_bias=bias, stop=["AA"], min_tokens=4) == ("AAAA", "stop")
    end = str(byte_tokenizer().eos_token_id)
    assert said(logit_bias={end: 100}) == ("", "stop")
    assert said(logit_bias={end: 100}, ignore_eos=True)[1] == "length"
