"""What a request asks about its tokens: how few there may be, and how likely they were."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import torch

from didact.errors import SpecError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.serving import Delta, EmbeddedEngine, GenerationRequest, Sampling
from tests.fakes.generation import PROMPTS, request
from tests.fakes.models import tiny_model

(A,) = byte_tokenizer().encode("A", add_special_tokens=False)
ONLY_A = Sampling(logit_bias=((A, 1000.0),))


def pieces_of(engine: EmbeddedEngine, wanted: GenerationRequest) -> list[Delta]:
    async def read() -> list[Delta]:
        return [delta async for delta in engine.generate(wanted)]

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        ({"stop_token_ids": (A,)}, [A]),
        ({"stop_token_ids": (A,), "min_tokens": 5}, None),  # another token has to come instead, five times
        ({"stop": ("A",)}, [A]),
        ({"stop": ("A",), "min_tokens": 5}, [A] * 6),
        ({"stop": ("AAA",), "min_tokens": 2}, [A] * 5),
        ({"stop": ("AAA",), "min_tokens": 0}, [A] * 3),
    ],
)
def test_an_answer_does_not_end_before_its_least_number_of_tokens(
    engine: EmbeddedEngine, stops: dict[str, Any], expected: list[int] | None
) -> None:
    pieces = pieces_of(engine, request(PROMPTS[0], sampling=ONLY_A, **stops))
    tokens = [token for piece in pieces for token in piece.token_ids]
    if expected is None:
        assert A not in tokens[:5]
        assert tokens[5:] == [A]
    else:
        assert tokens == expected
        visible = "A" * (stops.get("min_tokens", 0) if "stop" in stops else 0)
        assert "".join(piece.text for piece in pieces) == visible
    assert pieces[-1].finish_reason == "stop"


def test_logprobs_come_with_each_token_and_are_those_of_the_model(engine: EmbeddedEngine) -> None:
    wanted = request(PROMPTS[1], tokens=6, logprobs=3, sampling=Sampling(temperature=1.5, seed=4))
    pieces = pieces_of(engine, wanted)
    tokens = [token for piece in pieces for token in piece.token_ids]
    found = [each for piece in pieces for each in piece.logprobs]
    with torch.inference_mode():
        logits = tiny_model()(input_ids=torch.tensor([[*PROMPTS[1], *tokens]])).logits[0]
    expected = logits[len(PROMPTS[1]) - 1 : -1].log_softmax(-1)
    assert [each.token_id for each in found] == tokens
    for each, row in zip(found, expected, strict=True):
        assert each.logprob == pytest.approx(float(row[each.token_id]), abs=1e-4)
        assert [token for token, _ in each.top] == row.topk(3).indices.tolist()
    assert pieces_of(engine, replace(wanted, logprobs=None))[0].logprobs == ()


@pytest.mark.parametrize("wrong", [{"logprobs": 21}, {"logprobs": -1}, {"min_tokens": 13}, {"min_tokens": -1}])
def test_what_cannot_be_asked_about_tokens_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        request(PROMPTS[0], tokens=12, **wrong)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_greedy_answers_of_the_engine_repeat_no_ngram(engine: EmbeddedEngine, size: int) -> None:
    prompt = (40, 41, 40, 41, 40)
    wanted = request(prompt, tokens=24, sampling=Sampling(no_repeat_ngram_size=size))
    tokens = [token for piece in pieces_of(engine, wanted) for token in piece.token_ids]
    expected = tiny_model().generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=24, eos_token_id=None, pad_token_id=0,
        no_repeat_ngram_size=size,
    )  # fmt: skip
    assert tokens == expected[0, len(prompt) :].tolist()
