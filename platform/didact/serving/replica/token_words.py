"""Tokens with their probabilities in words, for clients that have no tokenizer.

TokenLogprob (ids) -> TokenWords.of -> TokenWord (text, bytes)
"""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from didact.serving.engine.protocol import Delta, TokenLogprob

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Word:
    """One token."""

    token_id: int
    content: bytes
    """Often only a part of a character."""
    logprob: float
    """Natural logarithm of its probability."""

    @property
    def text(self) -> str:
        """The token as text; what is no text as OpenAI writes it: `bytes:\\xe2\\x82`."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.content)


@dataclass(frozen=True, slots=True)
class TokenWord:
    """The token that came, and the likeliest ones in its place."""

    chosen: Word
    top: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class WordedDelta(Delta):
    """A piece of an answer with its tokens in words, where a request asks for probabilities."""

    words: tuple[TokenWord, ...] = ()


class TokenWords:
    """Puts tokens of one tokenizer into words."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        decoder = tokenizer.backend_tokenizer.decoder if tokenizer.is_fast else None
        self._is_byte_level = decoder is not None and b'"ByteLevel"' in decoder.__getstate__()
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        self._bytes_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
        self._added = {token.content for token in tokenizer.added_tokens_decoder.values()}

    def worded(self, delta: Delta) -> Delta:
        """The piece with its tokens in words."""
        if not delta.logprobs:
            return delta
        return WordedDelta(
            delta.text,
            delta.token_ids,
            delta.finish_reason,
            delta.logprobs,
            delta.stop_text,
            delta.queued_seconds,
            tuple(map(self.of, delta.logprobs)),
        )

    def of(self, found: TokenLogprob) -> TokenWord:
        """One token and the likeliest ones."""
        top = tuple(Word(token, self.content(token), logprob) for token, logprob in found.top)
        return TokenWord(Word(found.token_id, self.content(found.token_id), found.logprob), top)

    def content(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text."""
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:  # a row of the matrix that no token uses
            return b""
        if token in self._added:
            return str(token).encode()
        if self._is_byte_level and all(letter in self._bytes_of for letter in token):
            return bytes(self._bytes_of[letter] for letter in token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return str(token).replace("\u2581", " ").encode()  # SentencePiece's blank


def texts_of(words: Sequence[TokenWord]) -> str:
    """The text of tokens that came one after the other."""
    return b"".join(word.chosen.content for word in words).decode(errors="replace")


def offsets_of(words: Sequence[TokenWord]) -> Iterator[int]:
    """How many characters `texts_of` makes of the tokens before each one."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    length = 0
    for word in words:
        begun, _ = decoder.getstate()  # bytes of a character that is not whole yet
        yield length + len(begun.decode(errors="replace"))
        length += len(decoder.decode(word.chosen.content))
