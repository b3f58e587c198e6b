"""New pieces for a byte-pair tokenizer, learned on a corpus in continuation of its own merges.

The tokenizer's own merges are done first, and only then the new ones, so every text is tokenized as before and then
neighbouring tokens are joined into new pieces: a text in which no new piece occurs keeps its ids.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tokenizers import Encoding, Tokenizer, models, trainers
from transformers import PreTrainedTokenizerBase

from didact.errors import ModelError

_BATCH = 1000
_MIN_COUNT = 2
_LONGEST = 32  # tokens of the base in one piece: some ten characters where each takes three bytes
_COVERED = 0.9995  # share of the corpus's characters that get a piece, SentencePiece's for scripts with many of them
_SPARE = 1.25  # some merges give pieces that are there already
_WORD_START, _FIRST_IDEOGRAM = "▁", "\u2e80"
_BLANKS = dict.fromkeys(map(ord, "▁ĠĊĉč"))  # as vocabularies write space, line ends and tab
_SURROGATES, _FIRST_CHARACTER = range(0xD800, 0xE000), 0x100


@dataclass(frozen=True, slots=True)
class NewPiece:
    """One new entry of the vocabulary."""

    text: str
    """As the vocabulary writes it."""
    token_id: int
    parts: tuple[int, ...]
    """What the base tokenizer made of it."""


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], size: int, *, ascii_too: bool = False
) -> tuple[PreTrainedTokenizerBase, tuple[NewPiece, ...]]:
    """The tokenizer with up to `size` new pieces, and what they are; the tokenizer given stays as it is.

    Where a tokenizer writes unknown characters as bytes (SentencePiece with byte fallback), the frequent ones among
    them become pieces first.

    Args:
        tokenizer: a fast byte-pair tokenizer.
        texts: the corpus.
        size: most new pieces; fewer when the corpus has no more that occur twice.
        ascii_too: also join tokens of ASCII characters. Without, text in ASCII keeps its ids whatever foreign words
            the corpus holds; languages in Latin letters need it.

    Raises:
        ModelError: a tokenizer of another kind, or a corpus that gives no new piece.
    """
    state = _plain_state(tokenizer)
    pieces: list[NewPiece] = []
    if state["model"]["byte_fallback"]:
        pieces += _add_characters(state, texts, size, ascii_too)
    if len(pieces) < size:
        pieces += _add_merges(state, texts, size - len(pieces), pieces, ascii_too)
    if not pieces:
        raise ModelError("the corpus gives no new piece: nothing in it that occurs twice is written in several tokens")
    extended = copy.deepcopy(tokenizer)
    extended._tokenizer = Tokenizer.from_str(json.dumps(state))
    return extended, tuple(pieces)


def _plain_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer as JSON data, with its added tokens in the vocabulary, so that new ids move none of them."""
    if not tokenizer.is_fast:
        raise ModelError(f"{type(tokenizer).__name__} is not a fast tokenizer; its vocabulary cannot be extended")
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    model = state["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ModelError(f"the tokenizer is of kind {model['type']}; expected byte-pair encoding without word marks")
    model["vocab"] |= {token["content"]: token["id"] for token in state["added_tokens"]}
    model["merges"] = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return state


def _add_characters(state: dict[str, Any], texts: Sequence[str], size: int, ascii_too: bool) -> list[NewPiece]:
    vocabulary = state["model"]["vocab"]
    backend = Tokenizer.from_str(json.dumps(state))
    counts = Counter[str]()
    for text in texts:
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        words = backend.pre_tokenizer.pre_tokenize_str(normal) if backend.pre_tokenizer else [(normal, None)]
        counts.update(character for word, _ in words for character in word)
    uncovered, pieces = (1 - _COVERED) * counts.total(), []
    missing = sorted((count, character) for character, count in counts.items() if character not in vocabulary)
    for count, character in missing:  # from the rarest on
        uncovered -= count
        if uncovered < 0 and count >= _MIN_COUNT:
            pieces.append((count, character))
    by_count = sorted(pieces, key=lambda each: (-each[0], each[1]))
    chosen = [character for _, character in by_count if ascii_too or not character.isascii()][:size]
    return [_enter(vocabulary, character, _byte_ids(vocabulary, character)) for character in chosen]


def _add_merges(
    state: dict[str, Any], texts: Sequence[str], size: int, characters: Sequence[NewPiece], ascii_too: bool
) -> list[NewPiece]:
    model = state["model"]
    vocabulary, merges = model["vocab"], model["merges"]
    written = {token_id: text for text, token_id in vocabulary.items()}
    parts_of = {piece.token_id: piece.parts for piece in characters}
    unusable: set[str] = set()
    pieces: dict[str, NewPiece] = {}
    for left, right in _learned_merges(state, texts, size, ascii_too):
        first, second = ("".join(written[_token_id(each)] for each in half) for half in (left, right))
        tokens = [_token_id(character) for character in left + right]
        parts = tuple(part for token_id in tokens for part in parts_of.get(token_id, (token_id,)))
        made = pieces.get(first + second)
        # Text that other tokens make as well stays theirs: a new token stands for one run of old ones.
        taken = made.parts != parts if made else first + second in vocabulary
        if taken or left in unusable or right in unusable:
            unusable.add(left + right)
            continue
        merges.append([first, second])
        if made is None:
            pieces[first + second] = _enter(vocabulary, first + second, parts)
        if len(pieces) == size:
            break
    return list(pieces.values())


def _learned_merges(state: dict[str, Any], texts: Sequence[str], size: int, ascii_too: bool) -> list[tuple[str, str]]:
    """Merges over the base's tokens, most frequent first, each token written as one character (`_character`)."""
    words = Counter(_words(state, texts, ascii_too))
    alphabet = len({character for word in words for character in word})
    learner = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=alphabet + int(size * _SPARE) + 1,
        min_frequency=_MIN_COUNT,
        max_token_length=_LONGEST,
        show_progress=False,
    )
    learner.train_from_iterator(words.elements(), trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


def _words(state: dict[str, Any], texts: Sequence[str], ascii_too: bool) -> Iterator[str]:
    """Runs of tokens that may be joined, each token written as one character."""
    backend = Tokenizer.from_str(json.dumps(state))
    vocabulary = state["model"]["vocab"]
    apart = {token["id"] for token in state["added_tokens"]} | {vocabulary.get(state["model"]["unk_token"], -1)}
    if not ascii_too:
        apart |= {token_id for text, token_id in vocabulary.items() if text.translate(_BLANKS).isascii()}
    if '"ByteLevel"' in json.dumps(state["pre_tokenizer"]):
        # The pre-tokenizer has parted all that is to be parted.
        kinds: dict[int, int | None] = dict.fromkeys(vocabulary.values(), 0)
    else:
        kinds = {token_id: _kind(text) for text, token_id in vocabulary.items()}
    for start in range(0, len(texts), _BATCH):
        for encoding in backend.encode_batch(texts[start : start + _BATCH], add_special_tokens=False):
            for run in _runs(encoding, kinds, apart):
                if len(run) > 1:
                    yield "".join(map(_character, run))


def _kind(text: str) -> int | None:
    """Which tokens a token may be joined with: those of its number; a word begins with a new run; None with nothing.

    What SentencePiece does by script: letters of alphabets apart from others, and both from digits and marks.
    """
    letters = text.lstrip(_WORD_START)
    if not letters.isalpha():
        return None
    kind = int(letters[0] >= _FIRST_IDEOGRAM)
    return kind + 2 if text.startswith(_WORD_START) else kind


def _runs(encoding: Encoding, kinds: dict[int, int | None], apart: set[int]) -> Iterator[list[int]]:
    for _, group in groupby(zip(encoding.word_ids, encoding.ids, strict=True), key=lambda pair: pair[0]):
        run: list[int] = []
        last: int | None = None
        for _, token_id in group:
            kind = None if token_id in apart else kinds[token_id]
            if kind is None or kind != last:
                yield run
                run = []
            if kind is not None:
                run.append(token_id)
            last = kind % 2 if kind is not None else None  # a word goes on as its first token began
        yield run


def _enter(vocabulary: dict[str, int], text: str, parts: tuple[int, ...]) -> NewPiece:
    # Ids may have gaps, and those above the last are free.
    piece = NewPiece(text, max(vocabulary.values()) + 1, parts)
    vocabulary[text] = piece.token_id
    return piece


def _byte_ids(vocabulary: dict[str, int], character: str) -> tuple[int, ...]:
    return tuple(vocabulary[_byte_piece(byte)] for byte in character.encode())


def _byte_piece(byte: int) -> str:
    return f"<0x{byte:02X}>"


def _character(token_id: int) -> str:
    """A token as one character, so that a library which merges characters can merge tokens."""
    place = token_id + _FIRST_CHARACTER
    return chr(place if place < _SURROGATES.start else place + len(_SURROGATES))


def _token_id(character: str) -> int:
    place = ord(character)
    return (place if place < _SURROGATES.start else place - len(_SURROGATES)) - _FIRST_CHARACTER
