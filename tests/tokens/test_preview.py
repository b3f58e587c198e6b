"""The preview shows the text as the model sees it, and what of it is learned."""

import re

import numpy as np
import pytest
from rich.text import Text

from didact.datasets.conversation import Conversation, Message
from didact.display import visible
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.spec import TokensSpec
from didact.tokens import Sample, TemplateContract, encode, marked, preview


def sampled(answer: str, loss_on: str = "assistant") -> tuple[Sample, str]:
    tokenizer = byte_tokenizer()
    conversation = Conversation((Message("user", "[bold]你[/bold] \\"), Message("assistant", answer)), 0)
    contract = TemplateContract.build(tokenizer, "auto")
    sample = encode(conversation, tokenizer, contract, TokensSpec(loss_on=loss_on))
    assert isinstance(sample, Sample)
    return sample, contract.render(tokenizer, conversation.messages, False)


def highlighted(text: Text) -> str:
    return "".join(text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style))


ANSWERS = [
    "好🎉 [x] y",
    "[/] [red]no[/red]",
    "back\\",
    "\\\\",
    ":smile: :warning: 12",
    "a\ttab",
    "C:\\temp\\",
    "{x} %s",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_learned_text_is_highlighted_and_nothing_is_changed(answer: str) -> None:
    sample, whole = sampled(answer)
    shown = preview(sample, byte_tokenizer())
    assert shown.plain == whole
    assert highlighted(shown) == f"{answer}<|im_end|>"


@pytest.mark.parametrize("answer", [*ANSWERS, "[[1, 2], [3]]", "<<<7>>> [[", "[[ <<< {{{"])
def test_learned_text_is_marked_where_there_is_no_colour(answer: str) -> None:
    sample, whole = sampled(answer)
    (begin, end), (shown,) = marked([sample], byte_tokenizer())
    assert f"{begin}{answer}<|im_end|>{end}" in shown
    assert shown.replace(f"{begin}{answer}<|im_end|>{end}", f"{answer}<|im_end|>") == whole
    if "{{{" not in answer:
        assert begin not in whole and end not in whole


def test_the_first_token_is_never_learned() -> None:
    sample, whole = sampled("b", loss_on="all")
    assert highlighted(preview(sample, byte_tokenizer())) == whole.removeprefix("<|im_start|>")


def test_a_backslash_before_the_border_stays() -> None:
    tokenizer = byte_tokenizer()
    for text in ("a\\", "a\\\\", "a\\\\\\", "[b]\\"):
        ids = tokenizer(text + "b")["input_ids"]
        mask = np.arange(len(ids)) >= len(text)
        for learned in (mask, ~mask):
            sample = Sample(np.array(ids, np.int32), learned)
            assert preview(sample, tokenizer).plain == text + "b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "<U+001B>[31mred<U+001B>[0m"),
        ("a\r\nb\x00\x07\x7f", "a<U+000D>\nb<U+0000><U+0007><U+007F>"),
        ("safe\u202egnp.exe\u2066", "safe<U+202E>gnp.exe<U+2066>"),
        ("\ufeffmark\u200b\x85", "<U+FEFF>mark<U+200B><U+0085>"),
        ("half \ud83d", "half <U+D83D>"),
        ("👩\u200d💻 क\u200cष\ttab\n", "👩\u200d💻 क\u200cष\ttab\n"),
    ],
)
def test_what_would_not_be_seen_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert re.fullmatch(r"[^\x00-\x08\x0b-\x1f]*", visible(text))
