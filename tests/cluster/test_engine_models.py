import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from didact.cluster.asking.answering import EngineModels
from didact.cluster.asking.subjects import Subject
from didact.datasets.conversation import Message
from didact.errors import AdapterError, TemplateError
from didact.evaluation import Answer, Ask, Generation, Likelihood, TokenIds, log_likelihoods
from didact.models import AdapterHost, base_fingerprint, load_base, load_tokenizer, weights_digest
from didact.spec import LoraSpec, ModelSpec, PrefixSpec, QuantizationSpec, TokensSpec
from didact.tokens import TemplateContract
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.models import save_tiny_base

COMPUTED = {"base", "weights", "numbers", "quantization", "attention", "device", "engine"}
PROMPTS = [(Message("user", text),) for text in ("What is 2 + 2?", "Hi", "Name a colour, any that you like.", "1 + 1")]
NEW_TOKENS = 10


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    folder = tmp_path_factory.mktemp("models")
    model = ModelSpec(base=str(save_tiny_base(folder / "base")), dtype="float32")
    lora, prefix = folder / "lora", folder / "prefix"
    specs = {lora: LoraSpec(r=4), prefix: PrefixSpec(method="prefix", num_virtual_tokens=5)}
    for number, (adapter, spec) in enumerate(specs.items()):
        save_tiny_adapter(adapter, number, spec=spec, base_fingerprint=base_fingerprint(model), base=model.base)
    return {
        "base": Subject("tiny", model),
        "lora": Subject("mine", model, lora, strict=True),
        "prefix": Subject("other", model, prefix),
    }


@pytest.fixture(scope="module")
def models(subjects: dict[str, Subject]) -> Iterator[EngineModels]:
    loaded = EngineModels(subjects, device=torch.device("cpu"), batch_size=3)
    yield loaded
    loaded.close()


def ask(models: EngineModels, *asks: tuple[str, Ask]) -> list[Answer]:
    async def all_of_them() -> list[Answer]:
        return await asyncio.gather(*(models.answer(key, each) for key, each in asks))

    return asyncio.run(all_of_them())


def plainly(subject: Subject, prompt: list[int], stops: tuple[int, ...]) -> list[int]:
    """The oracle: no batch, no padding, no cache, no engine."""
    host = AdapterHost(load_base(subject.model, torch.device("cpu")), base_fingerprint(subject.model))
    if subject.adapter is not None:
        host.load("it", subject.adapter)
    new: list[int] = []
    with host.active("it" if subject.adapter else None) as model, torch.inference_mode():
        while len(new) < NEW_TOKENS:
            token = model(input_ids=torch.tensor([prompt + new]), use_cache=False).logits[0, -1].argmax().item()
            if token in stops:
                break
            new.append(token)
    return new


@pytest.mark.parametrize("key", ["base", "lora", "prefix"])
def test_all_subjects_together_answer_as_each_does_alone(
    key: str, subjects: dict[str, Subject], models: EngineModels
) -> None:
    tokenizer = load_tokenizer(subjects[key].model)
    contract = TemplateContract.of(tokenizer, TokensSpec())
    asks = [(each, Generation(prompt, NEW_TOKENS)) for prompt in PROMPTS for each in subjects]
    answers = {(each, ask.prompt): answer for (each, ask), answer in zip(asks, ask_all(models, asks), strict=True)}
    for prompt in PROMPTS:
        ids = plainly(subjects[key], contract.prompt_ids(tokenizer, prompt), contract.stop_token_ids)
        (text,) = answers[key, prompt].texts
        assert (text.text, text.num_tokens) == (tokenizer.decode(ids, skip_special_tokens=True), len(ids))
        assert text.finish == ("length" if len(ids) == NEW_TOKENS else "stop")


def ask_all(models: EngineModels, asks: list[tuple[str, Generation]]) -> list[Answer]:
    return ask(models, *asks)


@pytest.mark.parametrize("key", ["base", "lora", "prefix"])
def test_likelihoods_are_those_of_the_subject(key: str, subjects: dict[str, Subject], models: EngineModels) -> None:
    subject, tokenizer = subjects[key], load_tokenizer(subjects[key].model)
    contract = TemplateContract.of(tokenizer, TokensSpec())
    host = AdapterHost(load_base(subject.model, torch.device("cpu")), base_fingerprint(subject.model))
    if subject.adapter is not None:
        host.load("it", subject.adapter)
    letters = ("A", "B", " longer")
    asks = [(each, Likelihood(prompt, letters)) for prompt in PROMPTS for each in subjects]
    found = {(each, ask.prompt): answer for (each, ask), answer in zip(asks, ask(models, *asks), strict=True)}
    encoded = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in letters]
    for prompt in PROMPTS:
        ids = contract.prompt_ids(tokenizer, prompt)
        with host.active("it" if subject.adapter else None) as model:
            expected = log_likelihoods(model, [(ids, each) for each in encoded])
        for likely, other in zip(found[key, prompt].likelihoods, expected, strict=True):
            assert likely.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-5, abs=1e-5)
            assert (likely.num_tokens, likely.greedy) == (other.num_tokens, other.greedy)


def test_text_and_token_ids_are_taken_as_they_are(subjects: dict[str, Subject], models: EngineModels) -> None:
    ids = tuple(load_tokenizer(subjects["base"].model)("2 + 2 =", add_special_tokens=False)["input_ids"])
    four = tuple(load_tokenizer(subjects["base"].model)(" 4", add_special_tokens=False)["input_ids"])
    by_text, by_ids = ask(
        models,
        ("base", Likelihood("2 + 2 =", (" 4",))),
        ("base", Likelihood(TokenIds(ids), (TokenIds(four),))),
    )
    assert by_text.likelihoods == by_ids.likelihoods
    generated = ask(models, ("base", Generation("2 + 2 =", 5)), ("base", Generation(TokenIds(ids), 5)))
    assert generated[0].texts == generated[1].texts
    (free,) = ask(models, ("base", Likelihood("", ("text after nothing",))))
    assert free.problem is None and free.likelihoods[0].log_likelihood < 0


def test_an_opening_stands_before_the_answer_and_is_no_part_of_it(
    subjects: dict[str, Subject], models: EngineModels
) -> None:
    tokenizer = load_tokenizer(subjects["base"].model)
    contract = TemplateContract.of(tokenizer, TokensSpec())
    ids = [*contract.prompt_ids(tokenizer, PROMPTS[0]), *tokenizer("So", add_special_tokens=False)["input_ids"]]
    opened, written = ask(
        models,
        ("base", Generation(PROMPTS[0], 6, opening="So")),
        ("base", Generation(TokenIds(tuple(ids)), 6)),
    )
    assert opened.texts == written.texts


def test_samples_differ_and_repeat_by_their_seed(models: EngineModels) -> None:
    wanted = Generation(PROMPTS[0], 8, num_samples=4, temperature=2.0, seed=7)
    first, again, other = ask(
        models, ("base", wanted), ("base", wanted), ("base", Generation(PROMPTS[0], 8, temperature=2.0, seed=9))
    )
    assert first.texts == again.texts
    assert len({text.text for text in first.texts}) > 1
    assert other.texts[0] == first.texts[2]


def test_what_cannot_be_asked_is_the_answers_problem(models: EngineModels) -> None:
    long = (Message("user", "x" * 5000),)
    too_long, no_room, empty, good = ask(
        models,
        ("base", Generation(long, 4)),
        ("base", Likelihood(long, ("A",))),
        ("base", Likelihood(PROMPTS[0], ("A", ""))),
        ("base", Generation(PROMPTS[0], 4)),
    )
    assert too_long.problem is not None and "maximum context length" in too_long.problem
    assert no_room.problem is not None and "the model reads" in no_room.problem
    assert empty.problem is not None and "continuation 1 has no tokens" in empty.problem
    assert good.problem is None


def test_identities_tell_subjects_apart(subjects: dict[str, Subject], models: EngineModels) -> None:
    identities = {key: models.facts[key].identity for key in subjects}
    assert [each.name for each in identities.values()] == ["tiny", "mine", "other"]
    assert len({each.address for each in identities.values()}) == 3
    assert set(identities["lora"].digests) == {*COMPUTED, "template", "adapter"}
    assert identities["base"].digests["numbers"] == "float32"


def test_an_adapter_that_was_asked_otherwise_is_refused_where_it_must_be_asked_alike(
    subjects: dict[str, Subject],
) -> None:
    lora = subjects["lora"]
    assert lora.adapter is not None
    tokens = TokensSpec(template="{% for message in messages %}{{ message['content'] }}\n{% endfor %}")
    asked = Subject("mine", lora.model, lora.adapter, tokens, strict=True)
    with pytest.raises(TemplateError, match=r"the template contract differs in .*template"):
        EngineModels({"lora": asked}, device=torch.device("cpu"), batch_size=2)


def test_a_damaged_adapter_is_refused_before_anything_is_asked(subjects: dict[str, Subject], tmp_path: Path) -> None:
    with pytest.raises(AdapterError):
        EngineModels(
            {"gone": Subject("gone", subjects["base"].model, tmp_path)}, device=torch.device("cpu"), batch_size=2
        )


def test_weights_that_differ_anywhere_are_another_model(subjects: dict[str, Subject], tmp_path: Path) -> None:
    base = Path(subjects["base"].model.base)
    copy = shutil.copytree(base, tmp_path / "copy")
    assert weights_digest(copy) == weights_digest(base)
    (file,) = copy.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    for place in (-1, len(content) // 3):  # wherever it is, also between what the quick digest looks at
        content[place] ^= 1
        file.write_bytes(content)
        assert weights_digest(copy) != weights_digest(base)


def test_another_way_to_compute_is_another_model(subjects: dict[str, Subject], models: EngineModels) -> None:
    half = subjects["base"].model.model_copy(update={"dtype": "bfloat16"})
    four = subjects["base"].model.model_copy(update={"quantization": QuantizationSpec(bits=4)})
    addresses = {models.facts["base"].identity.address}
    for model in (half, four):
        other = EngineModels({"base": Subject("tiny", model)}, device=torch.device("cpu"), batch_size=1)
        addresses.add(other.facts["base"].identity.address)
        other.close()
    assert len(addresses) == 3
