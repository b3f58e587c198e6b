"""Text that appears piece by piece equals the text decoded at once."""

import pytest

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.serving.engine.text_stream import TextStream


def pieces(text: str | bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    tokenizer = byte_tokenizer()
    ids = tokenizer(text)["input_ids"]
    stream = TextStream(tokenizer, stop)
    shown = []
    for token in ids:
        shown.append(stream.push(token))
        if stream.met is not None:
            return shown, stream
    return [*shown, stream.finish()], stream


@pytest.mark.parametrize("text", ["plain", "Grüße, 世界! 👩‍👩‍👧 done", "é" * 40, " leading", "tail 👍"])
def test_characters_are_never_split(text: str) -> None:
    shown, _ = pieces(text)
    assert "".join(shown) == text
    assert not any("\ufffd" in piece for piece in shown)


def test_text_is_shown_as_soon_as_it_is_whole() -> None:
    shown, _ = pieces("a世b")
    assert shown == ["a", "", "", "世", "b", ""]


def test_bytes_that_are_no_text_do_not_hold_up_the_rest() -> None:
    tokenizer = byte_tokenizer()
    byte = tokenizer("世")["input_ids"][0]
    stream = TextStream(tokenizer)
    assert any(stream.push(byte) for _ in range(20))


@pytest.mark.parametrize(
    ("text", "stop", "expected", "stopped"),
    [
        ("one END two", ("END",), "one ", True),
        ("one EN two", ("END",), "one EN two", False),
        ("one EN", ("END",), "one EN", False),
        ("aaab", ("aab",), "a", True),
        ("x###y", ("#####", "###"), "x", True),
        ("early late", ("late", "early"), "", True),
        ("été fini", ("té",), "é", True),
    ],
)
def test_stop_texts(text: str, stop: tuple[str, ...], expected: str, stopped: bool) -> None:
    shown, stream = pieces(text, stop)
    assert "".join(shown) == expected
    assert (stream.met is not None) is stopped


def test_nothing_of_a_stop_text_is_ever_shown() -> None:
    shown, _ = pieces("one EN, END", ("END",))
    assert shown[4:6] == ["", ""]
    assert "".join(shown[:7]) == "one EN,"


def test_tokens_without_text_are_not_decoded_again_and_again() -> None:
    tokenizer = byte_tokenizer()
    stream, decoded = TextStream(tokenizer), []

    def counted(ids: list[int]) -> str:
        decoded.append(len(ids))
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    stream._decode = counted  # type: ignore[method-assign]
    said = "".join(stream.push(token) for token in tokenizer("a b")["input_ids"])
    said += "".join(stream.push(tokenizer.eos_token_id) for _ in range(500))
    said += "".join(stream.push(token) for token in tokenizer(" c")["input_ids"]) + stream.finish()
    assert said == "a b c" and max(decoded) < 40
