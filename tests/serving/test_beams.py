"""Beam search over the engine, beside transformers' own."""

import asyncio
import json
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from didact.errors import SpecError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import AdapterRef, EmbeddedEngine, GenerationRequest
from didact.serving.predict import PredictSettings, predict_file
from didact.serving.replica.beams import BeamAnswer, beam_search
from didact.serving.replica.worker import Worker
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import PROMPTS, answer, make_adapter, oracle, request
from tests.fakes.models import tiny_model


def by_transformers(
    family: str, prompt: tuple[int, ...], adapter: AdapterRef | None, beams: int, tokens: int, ends: list[int],
    penalty: float,
) -> list[int]:  # fmt: skip
    host = AdapterHost(tiny_model(family), TINY_BASE)
    if adapter is not None:
        host.load("only", adapter.folder)
    ids = torch.tensor([prompt])
    with host.active("only" if adapter else None) as model:
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=beams,
            max_new_tokens=tokens,
            eos_token_id=ends or None,
            pad_token_id=0,
            length_penalty=penalty,
            early_stopping=False,
        )
    answer = found[0, len(prompt) :].tolist()
    places = [place for place, token in enumerate(answer) if token in ends]
    return answer[: places[0] + 1] if places else answer


def searched(engine: EmbeddedEngine, wanted: GenerationRequest, beams: int, penalty: float = 1.0) -> BeamAnswer:
    return asyncio.run(beam_search(engine, wanted, beams, penalty))


@pytest.mark.parametrize(("family", "beams"), [("llama", 1), ("llama", 4), ("gemma", 2), ("gpt2", 3)])
def test_the_answer_is_that_of_transformers(family: str, beams: int, tmp_path: Path) -> None:
    adapters = [None, make_adapter(tmp_path / "a", 1, family)]
    engine = EmbeddedEngine(AdapterHost(tiny_model(family), TINY_BASE), byte_tokenizer())
    try:
        for adapter in adapters:
            prompt = PROMPTS[4]
            free = oracle(family, request(prompt, adapter, tokens=8))
            for ends, penalty in (((), 1.0), ((free[2],), 0.0), ((free[4],), 2.0)):
                found = searched(engine, request(prompt, adapter, 8, stop_token_ids=ends), beams, penalty)
                expected = by_transformers(family, prompt, adapter, beams, 8, list(ends), penalty)
                assert list(found.token_ids) == expected
                assert found.finish_reason == ("stop" if expected[-1] in ends else "length")
    finally:
        engine.close()


def test_a_step_reads_one_token_for_each_beam() -> None:
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer())
    prompt = PROMPTS[4]
    try:
        searched(engine, request(prompt, tokens=8), 4)
    finally:
        engine.close()  # what was read is counted when it was told
    assert engine.stats().prompt_tokens == len(prompt) + 7 * 4
    assert len(engine._rounds._known._prompts) <= 1 + 2 * 4, "the prompt, and the last two steps"


def test_beams_find_likelier_answers_than_greedy(engine: EmbeddedEngine) -> None:
    def score(ids: tuple[int, ...]) -> float:
        text = torch.tensor([[*PROMPTS[1], *ids]])
        with torch.inference_mode():
            logprobs = tiny_model()(input_ids=text).logits[0].log_softmax(-1)
        return sum(float(logprobs[len(PROMPTS[1]) + place - 1, token]) for place, token in enumerate(ids))

    wanted = request(PROMPTS[1], tokens=12)
    greedy = tuple(asyncio.run(answer(engine, wanted)))
    assert searched(engine, wanted, 1).token_ids == greedy
    assert score(searched(engine, wanted, 8).token_ids) >= score(greedy)


@pytest.mark.parametrize(("beams", "ends", "most"), [(11, (), 10), (0, (), 10), (7, (1, 2), 6)])
def test_more_beams_than_an_engine_tells_tokens_for_are_refused(
    engine: EmbeddedEngine, beams: int, ends: tuple[int, ...], most: int
) -> None:
    with pytest.raises(SpecError, match=f"num_beams: found {beams}; expected 1 to {most}"):
        searched(engine, request(PROMPTS[0], stop_token_ids=ends), beams)


def test_who_leaves_a_search_leaves_nothing(engine: EmbeddedEngine) -> None:
    async def leave() -> None:
        task = asyncio.create_task(beam_search(engine, request(PROMPTS[4], tokens=500), 3))
        while not engine.stats().generated_tokens:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while engine._rounds.has_begun or engine._rounds.is_asked:
            await asyncio.sleep(0)

    asyncio.run(leave())
    assert engine.stats().num_running == 0


HELLO = {"model": "tiny", "prompt": "hello", "max_tokens": 8, "return_token_ids": True}


@pytest.mark.parametrize("stream", [False, True])
def test_clients_ask_for_it_by_name(client: TestClient, worker: Worker, stream: bool) -> None:
    ids = tuple(client.post("/tokenize", json={"model": "tiny", "prompt": "hello"}).json()["tokens"])
    ends = worker._contract.stop_token_ids
    wanted = request(ids, tokens=8, stop_token_ids=ends)
    found = asyncio.run(beam_search(worker.engine, wanted, 3, 0.5))
    body = {**HELLO, "num_beams": 3, "length_penalty": 0.5, "stream": stream}
    answered = client.post("/v1/completions", json=body)
    assert answered.status_code == 200, answered.text
    if not stream:
        choice = answered.json()["choices"][0]
        assert choice["token_ids"] == list(found.token_ids)
        assert choice["finish_reason"] == found.finish_reason
    else:
        lines = [line.removeprefix("data: ") for line in answered.text.splitlines() if line.startswith("data: {")]
        told = [
            token for line in lines for each in json.loads(line)["choices"] for token in each.get("token_ids") or []
        ]
        assert told == list(found.token_ids)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"n": 2}, "n"),
        ({"logprobs": 0}, "logprobs"),
        ({"stop": ["x"]}, "stop"),
        ({"min_tokens": 1}, "min_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"num_beams": 1, "length_penalty": 0.5}, "length_penalty"),
        ({"num_beams": 11}, "num_beams"),
        ({"use_beam_search": True}, "use_beam_search"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_a_search_cannot_have_is_refused_by_name(client: TestClient, changes: dict, name: str) -> None:
    refused = client.post("/v1/completions", json={**HELLO, "num_beams": 2, **changes})
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == name
    assert refused.json()["error"]["message"].startswith(f"{name}: found")


def test_files_of_prompts_are_searched_too(worker: Worker, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "hello"}\n{"prompt": "how are you"}\n')
    written = {}
    for beams in (1, 4):
        settings = PredictSettings(max_new_tokens=8, num_beams=beams)
        report = predict_file(worker, source, tmp_path / f"{beams}.jsonl", model="tiny", settings=settings)
        assert (report.num_answered, report.num_failed) == (2, 0)
        written[beams] = (tmp_path / f"{beams}.jsonl").read_text()
    assert written[1] != written[4]
    with pytest.raises(SpecError, match=r"num_beams: found 4 beside a temperature of 0.5"):
        PredictSettings(num_beams=4, temperature=0.5)
