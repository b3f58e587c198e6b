"""Conversations -> samples: one rendering, one tokenization, and a mask of exactly the tokens to learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from didact.datasets.conversation import Conversation
from didact.errors import TemplateError
from didact.spec import TokensSpec
from didact.tokens.byte_level import samples_by_bytes
from didact.tokens.documents import encode_documents
from didact.tokens.render import Renderer
from didact.tokens.template import TemplateContract, special_text
from didact.tokens.types import Sample


@dataclass(frozen=True, slots=True)
class Rejection:
    """A conversation that cannot be learned from."""

    reason: str
    """One of `template_refused`, `special_text`, `no_answer`, `answer_cut`, `too_long`."""
    detail: str
    """What was found, in words."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one conversation."""

    result: Sample | Rejection
    truncated: bool = False
    """The sample's tail was cut at `max_length`."""
    last_turn_only: bool = False
    """`loss_on: assistant` asked for earlier answers too, but the template rewrites them once they are history."""
    further: tuple[Sample, ...] = ()
    """What follows `result` of a document that is longer than one sample."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples of the conversation; none when it is rejected."""
        return () if isinstance(self.result, Rejection) else (self.result, *self.further)


@dataclass(frozen=True, slots=True)
class _Rendered:
    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters to learn, as [start, end), in order and apart."""
    last_turn_only: bool = False


def encode(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, contract: TemplateContract, tokens: TokensSpec
) -> Sample | Rejection:
    """One conversation as tokens and loss mask, or why not; of a long document, the beginning.

    Raises:
        TemplateError: the template has no property by which the answer can be found in its text.
    """
    return encode_all([conversation], tokenizer, contract, tokens)[0].result


def encode_all(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    tokens: TokensSpec,
) -> list[Encoded]:
    """`encode` for many conversations, tokenized in one call; results in the order given.

    A document has no template: it becomes one sample, or several with `Encoded.further`.

    Raises:
        TemplateError: as `encode`.
    """
    texts = [each.messages[0].content for each in conversations if each.is_document]
    documents = iter(encode_documents(texts, tokenizer, tokens.max_length))
    dialogues = iter(
        _encode_dialogues([each for each in conversations if not each.is_document], tokenizer, contract, tokens)
    )
    return [_of_document(next(documents)) if each.is_document else next(dialogues) for each in conversations]


def _of_document(samples: tuple[Sample, ...]) -> Encoded:
    if not samples:
        return Encoded(Rejection("no_answer", "the tokenizer makes no token of this text"))
    return Encoded(samples[0], further=samples[1:])


def _encode_dialogues(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    tokens: TokensSpec,
) -> list[Encoded]:
    forged = special_text(tokenizer)
    stops = [text for text in tokenizer.convert_ids_to_tokens(list(contract.stop_token_ids)) if text]
    renderer = Renderer(contract, tokenizer)
    rendered: list[_Rendered | Rejection] = []
    for conversation in conversations:
        match = next((found for m in conversation.messages if (found := forged.search(m.content))), None)
        if match:
            detail = f"a message holds {match.group()!r}, which the tokenizer reads as a special token"
            rendered.append(Rejection("special_text", detail))
        else:
            rendered.append(_render(conversation, renderer, tokens.loss_on, stops))
    usable = [item for item in rendered if isinstance(item, _Rendered)]
    samples = iter(_tokenize(usable, tokenizer))
    return [
        Encoded(item) if isinstance(item, Rejection) else _fit(next(samples), item.last_turn_only, tokens)
        for item in rendered
    ]


def _render(conversation: Conversation, renderer: Renderer, loss_on: str, stops: list[str]) -> _Rendered | Rejection:
    messages = conversation.messages
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not answers or answers[0] == 0 or answers[-1] != len(messages) - 1:
        roles = ", ".join(message.role for message in messages)
        return Rejection("no_answer", f"turns are {roles}; expected a prompt first and an answer last")
    wanted = [] if loss_on == "all" else answers if loss_on == "assistant" else answers[-1:]
    try:
        text = renderer.render(messages, add_generation_prompt=False)
        headers = [renderer.render(messages[:index], add_generation_prompt=True) for index in wanted]
        closed = [renderer.render(messages[: last + 1], add_generation_prompt=False) for last in wanted[:-1]]
    except TemplateError as error:
        return Rejection("template_refused", str(error))
    if loss_on == "all":
        return _Rendered(text, ((0, len(text)),))
    last_turn_only = not all(text.startswith(header) for header in headers)
    if last_turn_only:
        wanted, headers, closed = wanted[-1:], headers[-1:], []
        _check_last(text, headers[0])
    limits = [_common_length(text, earlier) for earlier in closed] + [len(text)]
    spans = (
        (len(header), _answer_end(text, len(header), limit, messages[index].content.strip(), stops))
        for index, header, limit in zip(wanted, headers, limits, strict=True)
    )
    return _Rendered(text, tuple(spans), last_turn_only)


def _check_last(text: str, header: str) -> None:
    if not text.startswith(header):
        common = _common_length(text, header)
        raise TemplateError(
            "the chat template's prompt for an answer must be the beginning of the text with the answer, but after "
            f"{text[max(0, common - 40) : common]!r} the prompt goes on with {header[common : common + 40]!r} and the "
            f"text with {text[common : common + 40]!r}; set tokens.template to alpaca"
        )


def _common_length(text: str, other: str) -> int:
    if text.startswith(other):
        return len(other)
    pairs = enumerate(zip(text, other, strict=False))
    return next((index for index, (mine, others) in pairs if mine != others), len(text))


def _answer_end(text: str, start: int, limit: int, content: str, stops: list[str]) -> int:
    """End of the answer in `text[start:limit]`, with the mark that ends the turn but nothing after it."""
    found = text.find(content, start, limit) if content else -1
    after = found + len(content) if found >= 0 else start
    marks = [(position, stop) for stop in stops if (position := text.find(stop, after, limit)) >= 0]
    if marks:
        position, stop = min(marks)
        return position + len(stop)
    return after if found >= 0 else limit


def _tokenize(rendered: list[_Rendered], tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    if not rendered:
        return []
    if not tokenizer.is_fast:
        return [_tokenize_segments(item, tokenizer) for item in rendered]
    # Padding, truncation and the reading of special tokens are left behind in it by whoever asked for them last.
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = False
    texts = [item.text for item in rendered]
    samples = samples_by_bytes(texts, [item.spans for item in rendered], tokenizer)
    if samples is not None:
        return samples
    encoded = backend.encode_batch(texts, add_special_tokens=False)
    return [
        Sample(np.array(found.ids, dtype=np.int32), _mask(found, item))
        for item, found in zip(rendered, encoded, strict=True)
    ]


def _mask(found: Encoding, item: _Rendered) -> np.ndarray:
    """Overlap, not containment: a token that holds the answer's first letter must be learned even if it begins with the
    header's last space, and each token of a multi-byte character spans the whole character."""
    mask = np.zeros(len(found), dtype=bool)
    for start, end in item.spans:
        first, after = found.char_to_token(start), _first_from(found, end, len(item.text))
        if first is None or after is None:
            bounds = np.array(found.offsets, dtype=np.int64).reshape(-1, 2)
            mask |= (bounds[:, 1] > start) & (bounds[:, 0] < end)
        else:
            mask[first:after] = True
    return mask


def _first_from(found: Encoding, end: int, length: int) -> int | None:
    """The first token that begins at or after `end`; None where only the list of all offsets tells."""
    if end == length:
        return len(found)
    token = found.char_to_token(end)
    characters = None if token is None else found.token_to_chars(token)
    return token if characters is not None and characters[0] >= end else None


def _tokenize_segments(item: _Rendered, tokenizer: PreTrainedTokenizerBase) -> Sample:
    """For tokenizers that do not say which characters a token covers: the text is cut where the mask changes."""
    edges = [0, *(edge for span in item.spans for edge in span), len(item.text)]
    ids: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for index, (start, end) in enumerate(pairwise(edges)):
        text = item.text[start:end]
        piece = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []
        ids.append(np.array(piece, dtype=np.int32))
        masks.append(np.full(len(piece), index % 2 == 1))
    return Sample(np.concatenate(ids), np.concatenate(masks))


def _fit(sample: Sample, last_turn_only: bool, tokens: TokensSpec) -> Encoded:
    length = len(sample.ids)
    too_long = length > tokens.max_length
    if too_long and tokens.truncation == "drop":
        return Encoded(Rejection("too_long", f"{length} tokens; tokens.max_length is {tokens.max_length}"))
    if too_long:
        sample = Sample(sample.ids[: tokens.max_length].copy(), sample.mask[: tokens.max_length].copy())
    if not sample.mask[1:].any():  # a first token has no predecessor that could predict it
        if too_long:
            detail = f"no token to learn in the first {tokens.max_length} of {length} (tokens.max_length)"
            return Encoded(Rejection("answer_cut", detail))
        return Encoded(Rejection("no_answer", f"none of {length} tokens is to be learned"))
    return Encoded(sample, truncated=too_long, last_turn_only=last_turn_only)
