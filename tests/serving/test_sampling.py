"""Which tokens can be drawn, and how often."""

import math
from typing import Any

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from didact.errors import SpecError
from didact.serving.engine.protocol import Sampling
from didact.serving.engine.sampling import Sampler, token_logprob

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


def drawn(answer: tuple[int, ...] = (), **sampling: float) -> list[int]:
    """How often each of four tokens comes in 400 draws."""
    sampler = Sampler(Sampling(seed=0, **sampling), torch.device("cpu"))
    counts = [0] * 4
    for _ in range(400):
        counts[sampler.draw(LOGITS, list(answer))] += 1
    return counts


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        ({"temperature": 0.0}, {1}),
        ({"temperature": 1.0}, {0, 1, 2, 3}),
        ({"temperature": 1.0, "top_k": 2}, {1, 3}),
        ({"temperature": 1.0, "top_p": 0.69}, {1, 3}),
        ({"temperature": 1.0, "top_p": 0.71}, {1, 2, 3}),
        ({"temperature": 1.0, "top_p": 0.01}, {1}),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.75}, {1, 3}),
    ],
)
def test_which_tokens_can_come(sampling: dict[str, float], possible: set[int]) -> None:
    assert {token for token, count in enumerate(drawn(**sampling)) if count} == possible


def test_temperature_sharpens() -> None:
    plain, sharp = drawn(temperature=1.0), drawn(temperature=0.25)
    assert plain[1] == pytest.approx(160, abs=30)
    assert sharp[1] > 250


def test_penalties_count_the_answer() -> None:
    once, often = (1,), (1, 1, 1, 1)
    assert drawn(once, temperature=0.0, presence_penalty=0.1)[1] == 400
    assert drawn(once, temperature=0.0, presence_penalty=0.5)[3] == 400
    assert drawn(once, temperature=0.0, frequency_penalty=0.1)[1] == 400
    assert drawn(often, temperature=0.0, frequency_penalty=0.1)[3] == 400


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 5e-324},
        {"temperature": 1e-45},
        {"temperature": 1e-9},
        {"temperature": 1e-4},
        {"temperature": 1.0, "top_p": 1e-300},
        {"temperature": 1.0, "top_p": 1e-45},
        {"temperature": 2.0, "top_p": 1e-6, "top_k": 1},
    ],
    ids=str,
)
def test_the_smallest_numbers_leave_the_likeliest_token(sampling: dict[str, float]) -> None:
    for scale in (1.0, 1e4):  # logits of some bases are in the thousands
        sampler = Sampler(Sampling(seed=0, **sampling), torch.device("cpu"))
        assert {sampler.draw(LOGITS * scale, []) for _ in range(20)} == {1}


def test_the_largest_temperature_draws_all_tokens_alike() -> None:
    assert min(drawn(temperature=1e300)) > 60


def test_forbidden_tokens_never_come() -> None:
    logits = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf])
    for sampling in ({"temperature": 0.0}, {"temperature": 1e-45}, {"temperature": 50.0, "top_p": 0.9, "top_k": 3}):
        sampler = Sampler(Sampling(seed=0, **sampling), torch.device("cpu"))
        assert {sampler.draw(logits, []) for _ in range(50)} <= {0, 2}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", float("nan")),
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", float("nan")),
        ("top_k", -1),
        ("presence_penalty", float("inf")),
        ("frequency_penalty", float("nan")),
        ("seed", 2**63),
    ],
)
def test_numbers_that_mean_nothing_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(SpecError, match=f"{field}: found {value}; expected"):
        Sampling(**{field: value})


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        ({"temperature": 1.0, "min_p": 0.6}, {1, 3}),
        ({"temperature": 1.0, "min_p": 1.0}, {1}),
        ({"temperature": 0.25, "min_p": 0.4}, {1}),  # after temperature the second is 0.32 times the first
        ({"temperature": 1.0, "top_k": 3, "min_p": 0.6}, {1, 3}),
        ({"temperature": 0.0, "logit_bias": ((0, 2.0),)}, {0}),
        ({"temperature": 1.0, "logit_bias": ((1, -100.0), (2, -100.0))}, {0, 3}),
    ],
)
def test_which_tokens_can_come_by_share_and_bias(sampling: dict[str, Any], possible: set[int]) -> None:
    assert {token for token, count in enumerate(drawn(**sampling)) if count} == possible


def test_repetition_penalty_counts_prompt_and_answer_as_transformers_does() -> None:
    logits = torch.tensor([2.0, -1.0, 3.0, 0.5])
    sampler = Sampler(Sampling(repetition_penalty=1.5), torch.device("cpu"), prompt=(0, 1))
    ids = torch.tensor([[0, 1, 2]])
    expected = RepetitionPenaltyLogitsProcessor(1.5)(ids, logits[None])[0]
    torch.testing.assert_close(sampler._less_repeated(logits, [2]), expected)
    assert sampler.draw(logits, [2]) == int(expected.argmax())
    assert Sampler(Sampling(repetition_penalty=1.5), torch.device("cpu"), (2,)).draw(logits, []) in (0, 2)


def test_forbidden_tokens_cannot_come() -> None:
    sampler = Sampler(Sampling(), torch.device("cpu"))
    assert sampler.draw(LOGITS, [], forbidden=(1,)) == 3
    assert sampler.draw(LOGITS, [], forbidden=(1, 3)) == 2


def test_logprobs_are_the_models_own() -> None:
    found = token_logprob(LOGITS + 7, 2, 2)
    assert found.token_id == 2
    assert math.exp(found.logprob) == pytest.approx(0.2)
    assert [token for token, _ in found.top] == [1, 3]
    assert [math.exp(value) for _, value in found.top] == pytest.approx([0.4, 0.3])


@pytest.mark.parametrize(
    "wrong",
    [{"min_p": 1.1}, {"repetition_penalty": 0.0}, {"logit_bias": ((-1, 1.0),)}, {"logit_bias": ((1, math.inf),)}],
)
def test_what_no_sampling_can_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        Sampling(**wrong)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_no_row_of_tokens_comes_twice_as_in_transformers(size: int) -> None:
    random = torch.Generator().manual_seed(size)
    prompt = torch.randint(5, (12,), generator=random).tolist()
    sampler = Sampler(Sampling(no_repeat_ngram_size=size), torch.device("cpu"), prompt)
    twin, answer = NoRepeatNGramLogitsProcessor(size), list[int]()
    for _ in range(4 if size == 1 else 25):
        logits = torch.randn(9, generator=random)
        expected = twin(torch.tensor([prompt + answer]), logits[None])[0]
        if not bool(torch.isfinite(expected).any()):
            break
        answer.append(sampler.draw(logits, answer))
        assert answer[-1] == int(expected.argmax())
    text = prompt + answer
    new = [tuple(text[i : i + size]) for i in range(len(prompt) - size + 1, len(text) - size + 1)]
    assert len({*new}) == len(new) >= 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_every_token_would_repeat_one_does(temperature: float) -> None:
    sampler = Sampler(Sampling(temperature, no_repeat_ngram_size=1, top_p=0.9, seed=0), torch.device("cpu"), [0, 1, 2])
    logits, answer = torch.tensor([0.0, 0.0, 9.0, 0.0]), list[int]()
    for _ in range(3):
        answer.append(sampler.draw(logits, answer))
    assert answer == [3, 2, 2], "the one that is left, and then the likeliest"
