import dataclasses
import logging
from collections.abc import Iterator

import pytest
import torch
from transformers import GenerationConfig

from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.evaluation import generate_answers
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models.adapter.attach import attach_adapter
from didact.spec import LoraSpec, PrefixSpec
from didact.tokens.template import TemplateContract
from tests.fakes.models import tiny_model

TOKENIZER = byte_tokenizer()
CONTRACT = TemplateContract.build(TOKENIZER, "auto")
PROMPTS = [
    (Message("user", text),)
    for text in (
        "What is 2 + 2?",
        "Hi",
        "Name a colour, any colour that you like, and say why you like it.",
        "",
        "1 + 1",
    )
]
NEW_TOKENS = 12


def lively(family: str) -> torch.nn.Module:
    """A tiny model with weights so large that its answers hang on every token and position of the prompt."""
    model = tiny_model(family)
    shake(model, 0.4)
    return model


def adapted(spec: LoraSpec | PrefixSpec, family: str) -> torch.nn.Module:
    """The same with an adapter whose weights are not the neutral initial ones."""
    model = attach_adapter(lively(family), spec, seed=0, base_name="tiny")
    shake(model, 0.5)
    return model.eval()


def shake(model: torch.nn.Module, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale


def models() -> Iterator[object]:
    for family in ("llama", "gpt2", "gpt_neox"):
        yield pytest.param(lambda family=family: lively(family), id=family)
    yield pytest.param(lambda: adapted(LoraSpec(r=4, dropout=0.5), "llama"), id="llama-lora")
    for family in ("llama", "gpt2"):
        yield pytest.param(lambda family=family: adapted(PrefixSpec(method="prefix", num_virtual_tokens=5), family),
                           id=f"{family}-prefix")  # fmt: skip


def one_by_one(model: torch.nn.Module, stops: tuple[int, ...] = CONTRACT.stop_token_ids) -> list[list[int]]:
    """The oracle: no batch, no padding, no cache, no `generate`."""
    answers = []
    for prompt in PROMPTS:
        ids = CONTRACT.prompt_ids(TOKENIZER, prompt)
        new: list[int] = []
        with torch.inference_mode():
            while len(new) < NEW_TOKENS:
                token = model(input_ids=torch.tensor([ids + new]), use_cache=False).logits[0, -1].argmax().item()
                if token in stops:
                    break
                new.append(token)
        answers.append(new)
    return answers


def as_text(answers: list[list[int]]) -> list[str]:
    return [TOKENIZER.decode(ids, skip_special_tokens=True) for ids in answers]


def answer(model: torch.nn.Module, batch_size: int = 2, contract: TemplateContract = CONTRACT) -> list[str]:
    return generate_answers(model, TOKENIZER, contract, PROMPTS, max_new_tokens=NEW_TOKENS, batch_size=batch_size)


@pytest.mark.parametrize("build", [*models()])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batches_answer_as_a_plain_loop_does(build, batch_size: int) -> None:
    model = build()
    expected = as_text(one_by_one(model))
    assert len(set(expected)) == len(PROMPTS)
    assert answer(model, batch_size) == expected


def test_answers_end_before_the_stop_token() -> None:
    model = lively("llama")
    free = one_by_one(model, stops=())
    assert answer(model, 8, dataclasses.replace(CONTRACT, stop_token_ids=())) == as_text(free)
    stops = (free[0][3],)
    cut = one_by_one(model, stops)
    assert len(cut[0]) <= 3 < max(map(len, cut))  # others go on, so that rows which have ended are filled up
    assert answer(model, 8, dataclasses.replace(CONTRACT, stop_token_ids=stops)) == as_text(cut)


@pytest.mark.parametrize("build", [*models()])
def test_the_models_own_generation_settings_change_nothing_and_stay(build) -> None:
    model = build()
    expected = answer(model)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, no_repeat_ngram_size=1, suppress_tokens=[65, 66],
        min_new_tokens=9, eos_token_id=7, forced_eos_token_id=67,
    )  # fmt: skip
    base.generation_config = own
    assert answer(model) == expected
    assert base.generation_config is own


@pytest.mark.parametrize("was_training", [True, False])
def test_dropout_is_off_and_the_mode_comes_back(was_training: bool) -> None:
    model = adapted(LoraSpec(r=4, dropout=0.5), "llama")
    expected = answer(model)
    model.train(was_training)
    assert answer(model) == expected
    assert all(module.training is was_training for module in model.modules())


def test_prompts_beyond_the_context_are_answered_empty_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    model = lively("llama")
    long = (Message("user", "x" * 2000),)
    with caplog.at_level(logging.WARNING, logger="didact"):
        texts = generate_answers(
            model, TOKENIZER, CONTRACT, [PROMPTS[0], long, PROMPTS[1]], max_new_tokens=NEW_TOKENS, batch_size=4
        )
    first, second, *_ = as_text(one_by_one(model))
    assert texts == [first, "", second]
    assert "1 of 3 prompts" in caplog.text


@pytest.mark.parametrize("num_virtual_tokens", [0, 5])
def test_the_last_prompt_that_fits_the_context_is_answered(num_virtual_tokens: int) -> None:
    model = tiny_model()
    if num_virtual_tokens:
        model = adapted(PrefixSpec(method="prefix", num_virtual_tokens=num_virtual_tokens), "llama")
    overhead = len(CONTRACT.prompt_ids(TOKENIZER, (Message("user", ""),)))
    room = model.config.max_position_embeddings - num_virtual_tokens - NEW_TOKENS - overhead
    prompts = [(Message("user", "x" * room),), (Message("user", "x" * (room + 1)),)]
    contract = dataclasses.replace(CONTRACT, stop_token_ids=())
    fits, too_long = generate_answers(model, TOKENIZER, contract, prompts, max_new_tokens=NEW_TOKENS, batch_size=2)
    assert fits
    assert too_long == ""


def test_a_batch_ends_when_all_its_answers_have() -> None:
    model = lively("llama")
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    everything = dataclasses.replace(CONTRACT, stop_token_ids=tuple(range(model.config.vocab_size)))
    assert answer(model, 8, everything) == [""] * len(PROMPTS)
    assert len(calls) == 1


def test_no_prompts_no_answers() -> None:
    assert generate_answers(tiny_model(), TOKENIZER, CONTRACT, [], max_new_tokens=4, batch_size=2) == []


def test_a_prompt_without_tokens_is_refused() -> None:
    silent = dataclasses.replace(CONTRACT, template="{{ messages[0]['content'] }}")
    with pytest.raises(DataError, match="prompt 3 renders to no tokens"):
        answer(tiny_model(), 2, silent)
