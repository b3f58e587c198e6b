"""Answers with guessed tokens, beside the same answers without."""

import asyncio
from pathlib import Path

import pytest
import torch

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine, GenerationRequest, Sampling
from didact.serving.engine import batch as batches
from didact.serving.engine.drafts import PromptLookup, allows_gaps
from didact.serving.metrics.answers import AnswerMetrics
from didact.serving.metrics.snapshots import MetricsSum
from didact.spec import ServeSpec
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import make_adapter, oracle, request
from tests.fakes.models import tiny_model

COPIES = [tuple(range(40, 60)) * 3, (7, 8, 9, 7, 8, 9, 7, 8), tuple(range(100, 140))]


def engine_on(model: torch.nn.Module, guessed: int, **more) -> EmbeddedEngine:
    return EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer(), prompt_lookup_tokens=guessed, **more)


def together(engine: EmbeddedEngine, wanted: list[GenerationRequest]) -> list[list[int]]:
    """The answers of rows that begin in one batch."""

    async def all_at_once() -> list[list[int]]:
        with engine._changed:  # no row begins before all wait
            streams = [engine.generate(each) for each in wanted]
        return [[token async for delta in stream for token in delta.token_ids] for stream in streams]

    return asyncio.run(all_at_once())


def answered(family: str, wanted: list[GenerationRequest], guessed: int) -> tuple[list, int, EmbeddedEngine]:
    """The answers, the passes over the model, and the engine, closed."""
    model, passes = tiny_model(family), []
    model.register_forward_pre_hook(lambda _, args, inputs: passes.append(inputs["input_ids"].shape), with_kwargs=True)
    engine = engine_on(model, guessed)
    try:
        return together(engine, wanted), len(passes), engine
    finally:
        engine.close()


def test_what_followed_before_is_the_guess() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 9, 2, 3])
    assert lookup.draft([], 3) == [4, 5, 9]
    assert lookup.draft([4], 1) == [5]
    assert lookup.draft([4, 7], 3) == []
    assert lookup.draft([4, 7, 2, 3], 2) == [4, 7]  # the newest place counts
    assert lookup.draft([4, 7, 2, 3, 4, 5], 8) == [9, 2, 3, 4, 7, 2, 3, 4]  # three alike before two
    assert lookup.draft([4, 7, 2, 3, 4, 5], 0) == []


def test_a_row_whose_guesses_are_wrong_guesses_less() -> None:
    lookup, answer, guesses = PromptLookup([1, 2, 3]), [], []
    for _ in range(100):
        answer += [1, 2]
        draft = lookup.draft(answer, 2)
        guesses.append(bool(draft))
        if draft:
            lookup.judge(0)
    assert sum(guesses) <= 8
    lookup.judge(1)
    answer += [1, 2]
    assert lookup.draft(answer, 2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "mistral", "bloom", "qwen3"])
def test_greedy_answers_stay_the_same_in_fewer_passes(family: str, tmp_path: Path) -> None:
    adapters = [None, make_adapter(tmp_path / "a", 1, family), make_adapter(tmp_path / "b", 2, family)]
    wanted = [request(prompt, adapter, tokens=40) for prompt in COPIES for adapter in adapters]
    found, _, _ = answered(family, wanted, 5)
    assert found == [oracle(family, each) for each in wanted]


@pytest.mark.parametrize("count", [1, 4])
def test_answers_that_repeat_take_fewer_passes(count: int) -> None:
    wanted = [request(prompt, tokens=60) for prompt in (*COPIES, (5, 6, 7))[:count]]
    plain, many, none = answered("llama", wanted, 0)
    found, few, engine = answered("llama", wanted, 4)
    stats = engine.stats()
    assert found == plain
    assert few < (0.7 if count == 1 else 0.95) * many  # tiny random models go round in circles
    assert 0 < stats.num_drafts <= stats.drafted_tokens
    assert 0 < stats.right_drafted_tokens <= stats.drafted_tokens
    assert none.stats().drafted_tokens == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(temperature=0.7, seed=5)},
        {"sampling": Sampling(repetition_penalty=1.3, presence_penalty=0.4)},
        {"sampling": Sampling(no_repeat_ngram_size=3)},
        {"sampling": Sampling(logit_bias=((44, 4.0),))},
        {"stop_token_ids": (45, 52), "min_tokens": 9},
        {"stop": ("4", "-.")},
        {"logprobs": 2},
    ],
    ids=["seed", "penalties", "ngrams", "bias", "stops", "texts", "logprobs"],
)
def test_whatever_chooses_the_tokens_chooses_the_same(fields: dict) -> None:
    wanted = [request(prompt, tokens=30, **fields) for prompt in COPIES]
    assert answered("llama", wanted, 4)[0] == answered("llama", wanted, 0)[0]


def test_gaps_between_columns_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [request(prompt, tokens=60 - 7 * row) for row, prompt in enumerate((*COPIES, *COPIES))]
    plain = answered("llama", wanted, 0)[0]
    widths = []
    for most in (1.0, 100.0):
        monkeypatch.setattr(batches, "_MOST_COLUMNS", most)
        model, columns = tiny_model(), [0]
        model.register_forward_pre_hook(
            lambda _, args, inputs, columns=columns: columns.append(inputs["attention_mask"].shape[1]), with_kwargs=True
        )
        engine = engine_on(model, 4)
        try:
            assert together(engine, wanted) == plain
        finally:
            engine.close()
        widths.append(max(columns))
    assert widths[0] <= 60 + 60 + 5 < widths[1]


def test_where_columns_tell_positions_only_a_row_alone_is_guessed() -> None:
    assert allows_gaps(tiny_model("llama"))
    assert not allows_gaps(tiny_model("bloom"))
    wanted = [request(prompt, tokens=30) for prompt in COPIES]
    assert answered("bloom", wanted, 4)[2].stats().num_drafts == 0
    assert answered("bloom", wanted[:1], 4)[2].stats().num_drafts > 0


def test_what_was_guessed_is_counted_under_vllms_names() -> None:
    stats = answered("llama", [request(COPIES[0], tokens=40)], 4)[2].stats()
    text = MetricsSum().text([AnswerMetrics("tiny").snapshot("one", stats, 128)]).decode()
    labels = '{engine="0",model_name="tiny"}'
    for name, value in [
        ("num_drafts", stats.num_drafts),
        ("num_draft_tokens", stats.drafted_tokens),
        ("num_accepted_tokens", stats.right_drafted_tokens),
    ]:
        assert f"vllm:spec_decode_{name}_total{labels} {float(value)}" in text


def test_vllm_does_not_guess() -> None:
    assert ServeSpec(prompt_lookup_tokens=4).prompt_lookup_tokens == 4
    with pytest.raises(ValueError, match="prompt_lookup_tokens: found 4; only the engine embedded guesses tokens"):
        ServeSpec(engine="vllm", prompt_lookup_tokens=4)
