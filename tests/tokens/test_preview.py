"""The preview shows what is learned."""

import numpy as np
from rich.text import Text

from didact.datasets.conversation import Conversation, Message
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.spec import TokensSpec
from didact.tokens import Sample, TemplateContract, encode, preview


def previewed(answer: str, loss_on: str = "assistant") -> tuple[Text, str]:
    tokenizer = byte_tokenizer()
    conversation = Conversation((Message("user", "[bold]你[/bold] \\"), Message("assistant", answer)), 0)
    contract = TemplateContract.build(tokenizer, "auto")
    sample = encode(conversation, tokenizer, contract, TokensSpec(loss_on=loss_on))
    assert isinstance(sample, Sample)
    return Text.from_markup(preview(sample, tokenizer)), contract.render(tokenizer, conversation.messages, False)


def highlighted(text: Text) -> str:
    return "".join(text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style))


def test_learned_text_is_highlighted_and_nothing_is_lost() -> None:
    for answer in ("好🎉 [x] y", "[/] [red]no[/red]", "back\\", "\\\\"):
        shown, whole = previewed(answer)
        assert shown.plain == whole
        assert highlighted(shown) == f"{answer}<|im_end|>"


def test_the_first_token_is_never_learned() -> None:
    shown, whole = previewed("b", loss_on="all")
    assert highlighted(shown) == whole.removeprefix("<|im_start|>")


def test_a_backslash_before_the_border_stays() -> None:
    tokenizer = byte_tokenizer()
    for text in ("a\\", "a\\\\", "a\\\\\\", "[b]\\"):
        ids = tokenizer(text + "b")["input_ids"]
        mask = np.arange(len(ids)) >= len(text)
        for learned in (mask, ~mask):
            shown = Text.from_markup(preview(Sample(np.array(ids, np.int32), learned), tokenizer))
            assert shown.plain == text + "b"
