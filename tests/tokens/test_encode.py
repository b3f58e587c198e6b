"""Exactly the right tokens are learned: each mask is decoded back to text."""

from dataclasses import replace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from didact.datasets.conversation import Conversation, Message, Role
from didact.gpu_proof.tokenizer import CHATML, byte_tokenizer
from didact.spec import TokensSpec
from didact.tokens import Rejection, Sample, TemplateContract, encode, encode_all

END = "<|im_end|>"


def talk(*texts: str, system: str | None = None, row: int = 0) -> Conversation:
    roles: tuple[Role, Role] = ("user", "assistant")
    messages = [Message(roles[index % 2], text) for index, text in enumerate(texts)]
    return Conversation(tuple([Message("system", system)] * (system is not None) + messages), row)


SINGLE = talk("Say hi", "Hi!")
MULTI = talk("1?", " one\n", "2?", "two", "3?", "three", system="Count")
CHINESE = talk("你好吗", "🎉我很好👩‍👩‍👧", "再见", "再见🎉")
NAMES_MARK = talk("end", "end", "im", "im_end|> <|im")


def learned(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, choice: str, loss_on: str, max_length: int = 2000
) -> str:
    contract = TemplateContract.build(tokenizer, choice)
    tokens = TokensSpec(loss_on=loss_on, max_length=max_length)
    (encoded,) = encode_all([conversation], tokenizer, contract, tokens)
    assert encoded.samples and not encoded.left_out, encoded.result
    for sample in encoded.samples:
        assert sample.ids.dtype == "int32" and sample.mask.dtype == "bool" and sample.ids.shape == sample.mask.shape
    return "".join(tokenizer.decode(sample.ids[sample.mask].tolist()) for sample in encoded.samples)


@pytest.mark.parametrize("choice", ["model", "alpaca"])
@pytest.mark.parametrize("conversation", [SINGLE, MULTI, CHINESE, NAMES_MARK])
def test_each_policy_learns_exactly_its_text(conversation: Conversation, choice: str) -> None:
    tokenizer = byte_tokenizer()
    answers = [message.content + END for message in conversation.messages if message.role == "assistant"]
    whole = TemplateContract.build(tokenizer, choice).render(tokenizer, conversation.messages, False)
    assert learned(conversation, tokenizer, choice, "assistant") == "".join(answers)
    assert learned(conversation, tokenizer, choice, "last_turn") == answers[-1]
    assert learned(conversation, tokenizer, choice, "all") == whole


def test_an_answer_that_is_marked_is_read_and_not_learned() -> None:
    tokenizer = byte_tokenizer()
    asked, said, again, last = talk("1?", "one", "2?", "two").messages
    first = Conversation((asked, replace(said, learned=False), again, last), 0)
    for policy in ("assistant", "last_turn"):
        assert learned(first, tokenizer, "model", policy) == f"two{END}"
    whole = TemplateContract.build(tokenizer, "model").render(tokenizer, first.messages, False)
    assert learned(first, tokenizer, "model", "all") == whole.replace(f"one{END}", "")
    second = Conversation((asked, said, again, replace(last, learned=False)), 0)
    assert learned(second, tokenizer, "model", "assistant") == f"one{END}"
    assert learned(second, tokenizer, "model", "all") == whole.replace(f"two{END}", "")
    contract = TemplateContract.build(tokenizer, "model")
    found = encode(second, tokenizer, contract, TokensSpec(loss_on="last_turn"))
    assert isinstance(found, Rejection) and found.reason == "not_to_learn"


def test_the_sample_begins_with_the_prompt_that_serving_sends() -> None:
    tokenizer = byte_tokenizer()
    contract = TemplateContract.build(tokenizer, "auto")
    for conversation in (SINGLE, MULTI, CHINESE):
        sample = encode(conversation, tokenizer, contract, TokensSpec(loss_on="last_turn", max_length=2000))
        prompt = contract.prompt_ids(tokenizer, conversation.prompt)
        assert isinstance(sample, Sample)
        assert sample.ids[: len(prompt)].tolist() == prompt
        assert not sample.mask[: len(prompt)].any() and sample.mask[len(prompt)]


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama-2's: spaces become a letter that joins words, unknown characters fall back to bytes."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in [*"▁Haiony1?", "▁o", "▁on"]:
        vocabulary.setdefault(piece, len(vocabulary))
    model = models.BPE(
        vocab=vocabulary, merges=[("▁", "o"), ("▁o", "n")], byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
    )
    return tokenizer


@pytest.mark.parametrize("answer", ["on on", "🎉on", "好", "on🎉"])
def test_a_token_with_the_space_before_the_answer_is_learned(answer: str) -> None:
    text = learned(talk("Hi?", "ni", "1?", answer), sentencepiece_like(), "auto", "assistant")
    assert text.replace("  ", " ") == f" ni </s> {answer} </s>"


def test_a_token_across_the_answers_first_letter_is_learned() -> None:
    tokenizer = sentencepiece_like()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
    )
    assert "▁on" in tokenizer.tokenize("[assistant] on") and "▁ni" not in tokenizer.get_vocab()
    assert learned(talk("Hi?", "on 1", "1?", "ni"), tokenizer, "auto", "assistant") == " on 1</s>ni</s>"


def test_slow_tokenizer_is_cut_into_segments() -> None:
    tokenizer = ByT5Tokenizer()
    assert not tokenizer.is_fast
    assert learned(CHINESE, tokenizer, "alpaca", "assistant") == "🎉我很好👩‍👩‍👧</s>再见🎉</s>"
    assert learned(CHINESE, tokenizer, "alpaca", "last_turn") == "再见🎉</s>"
    assert learned(talk("a", "s"), tokenizer, "alpaca", "assistant") == "s</s>"
    assert learned(SINGLE, tokenizer, "alpaca", "all").endswith("### Response:\nHi!</s>")


def test_end_mark_of_the_template_that_is_not_eos() -> None:
    tokenizer = byte_tokenizer(
        CHATML.replace("<|im_end|>", "<|turn_end|>").replace("message['content']", "message['content'] | trim")
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|turn_end|>"]})
    assert learned(talk("a", "  b ", "c", "d\n\n"), tokenizer, "auto", "assistant") == "b<|turn_end|>d<|turn_end|>"


def test_template_without_end_mark_learns_the_answers_alone() -> None:
    tokenizer = byte_tokenizer(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    assert learned(talk("a", "b", "c", "d"), tokenizer, "auto", "assistant") == "bd"


def test_template_that_closes_only_the_last_turn() -> None:
    tokenizer = byte_tokenizer(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
        "{% if loop.last and m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    assert learned(talk("a", "b", "c", "d"), tokenizer, "auto", "assistant") == f"b{END}d{END}"


def test_an_earlier_turn_takes_nothing_of_the_next() -> None:
    tokenizer = byte_tokenizer(
        "{% for m in messages %}{{ m['content'] }}{% if loop.last and m['role'] == 'assistant' %}"
        "{{ eos_token + '-' * 40 }}{% endif %}{{ '\n' }}{% endfor %}"
    )
    assert learned(talk("a", "b", "c", "d"), tokenizer, "auto", "assistant") == f"b{END}d{END}"


def outcome(conversation: Conversation, **settings: object) -> tuple[Sample | Rejection, int]:
    tokenizer = byte_tokenizer()
    encoded = encode_all([conversation], tokenizer, TemplateContract.build(tokenizer, "auto"), TokensSpec(**settings))[
        0
    ]
    return encoded.result, encoded.truncated


def test_truncation_at_the_end() -> None:
    whole, cut = outcome(SINGLE)
    assert isinstance(whole, Sample) and not cut
    header = int(whole.mask.argmax())
    kept, cut = outcome(SINGLE, max_length=header + 2)
    assert isinstance(kept, Sample) and cut
    assert kept.ids.tolist() == whole.ids[: header + 2].tolist() and kept.mask.sum() == 2
    rejected, cut = outcome(SINGLE, max_length=header)
    assert isinstance(rejected, Rejection) and rejected.reason == "answer_cut" and not cut
    assert str(header) in rejected.detail


def test_truncation_by_dropping() -> None:
    whole, _ = outcome(SINGLE)
    assert isinstance(whole, Sample)
    fits, _ = outcome(SINGLE, truncation="drop", max_length=len(whole.ids))
    assert isinstance(fits, Sample)
    rejected, _ = outcome(SINGLE, truncation="drop", max_length=len(whole.ids) - 1)
    assert isinstance(rejected, Rejection) and rejected.reason == "too_long"


def test_text_of_special_tokens_is_rejected() -> None:
    rejected, _ = outcome(talk("a", f"b{END}c"))
    assert isinstance(rejected, Rejection) and rejected.reason == "special_text"


def test_conversation_without_an_answer_is_rejected() -> None:
    for messages in ((Message("user", "a"),), (Message("assistant", "a"),), (*SINGLE.messages, Message("user", "b"))):
        rejected, _ = outcome(Conversation(messages, 0))
        assert isinstance(rejected, Rejection) and rejected.reason == "no_answer"


def test_empty_answer_without_an_end_mark_is_rejected() -> None:
    tokenizer = byte_tokenizer("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    contract = TemplateContract.build(tokenizer, "auto")
    rejected = encode(talk("a", ""), tokenizer, contract, TokensSpec())
    assert isinstance(rejected, Rejection) and rejected.reason == "no_answer"


def test_refusal_by_the_template_is_a_rejection() -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    tokenizer = byte_tokenizer(template)
    contract = TemplateContract.build(tokenizer, "auto")
    refused, fine = encode_all([MULTI, SINGLE], tokenizer, contract, TokensSpec())
    assert isinstance(refused.result, Rejection) and refused.result.reason == "template_refused"
    assert "no system turn" in refused.result.detail
    assert isinstance(fine.result, Sample)


def test_many_at_once_equal_one_by_one() -> None:
    tokenizer = byte_tokenizer()
    contract = TemplateContract.build(tokenizer, "auto")
    conversations = [SINGLE, talk("a", f"b{END}"), MULTI, CHINESE]
    tokens = TokensSpec(max_length=60)
    together = [encoded.result for encoded in encode_all(conversations, tokenizer, contract, tokens)]
    for conversation, result in zip(conversations, together, strict=True):
        alone = encode(conversation, tokenizer, contract, tokens)
        if isinstance(result, Rejection):
            assert alone == result
        else:
            assert isinstance(alone, Sample)
            assert (alone.ids.tolist(), alone.mask.tolist()) == (result.ids.tolist(), result.mask.tolist())
