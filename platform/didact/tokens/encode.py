"""Conversations -> samples: one rendering, one tokenization, and a mask of exactly the tokens to learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from didact.datasets.conversation import Conversation
from didact.errors import NoToolSyntax, TemplateError
from didact.spec import TokensSpec
from didact.tokens.answers import Answers, Rendered, find_all_but, find_answers
from didact.tokens.byte_level import samples_by_bytes
from didact.tokens.documents import encode_documents
from didact.tokens.render import Renderer
from didact.tokens.template import TemplateContract, special_text
from didact.tokens.types import Sample


@dataclass(frozen=True, slots=True)
class Rejection:
    """A conversation that cannot be learned from."""

    reason: str
    """One of `template_refused`, `no_tool_syntax`, `special_text`, `no_answer`, `not_to_learn`, `answer_cut`,
    `too_long`."""
    detail: str
    """What was found, in words."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one conversation."""

    result: Sample | Rejection
    truncated: int = 0
    """Samples whose tail was cut at `max_length`."""
    further: tuple[Sample, ...] = ()
    """What follows `result`: of a document that is longer than one sample, or of a conversation whose template shows
    earlier answers otherwise than the last, so that one text cannot teach them all."""
    left_out: tuple[str, ...] = ()
    """Of each answer that `loss_on` asks for and no sample teaches, why; empty for a rejected conversation."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples of the conversation; none when it is rejected."""
        return () if isinstance(self.result, Rejection) else (self.result, *self.further)


def encode(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, contract: TemplateContract, tokens: TokensSpec
) -> Sample | Rejection:
    """One conversation as tokens and loss mask, or why not; the first of its samples where it has several."""
    return encode_all([conversation], tokenizer, contract, tokens)[0].result


def encode_all(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    tokens: TokensSpec,
) -> list[Encoded]:
    """`encode` for many conversations, tokenized in one call; results in the order given.

    A document has no template: it becomes one sample, or several with `Encoded.further`.
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
    rendered: list[Answers | Rejection] = []
    for conversation in conversations:
        match = next((found for m in conversation.messages if (found := forged.search(m.written))), None)
        if match:
            detail = f"a message holds {match.group()!r}, which the tokenizer reads as a special token"
            rendered.append(Rejection("special_text", detail))
        else:
            rendered.append(_render(conversation, renderer, tokens.loss_on, stops))
    samples = iter(
        _tokenize([text for item in rendered if isinstance(item, Answers) for text in item.texts], tokenizer)
    )
    return [
        Encoded(item)
        if isinstance(item, Rejection)
        else _fit([next(samples) for _ in item.texts], item.left_out, tokens)
        for item in rendered
    ]


def _render(conversation: Conversation, renderer: Renderer, loss_on: str, stops: list[str]) -> Answers | Rejection:
    messages = conversation.messages
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not answers or answers[0] == 0 or answers[-1] != len(messages) - 1:
        roles = ", ".join(message.role for message in messages)
        return Rejection("no_answer", f"turns are {roles}; expected a prompt first and an answer last")
    wanted = [index for index in (answers[-1:] if loss_on == "last_turn" else answers) if messages[index].learned]
    if not wanted and loss_on != "all":
        return Rejection("not_to_learn", "the answer to learn is marked as not to be learned")
    try:
        if loss_on == "all":
            hidden = [index for index in answers if not messages[index].learned]
            return Answers((find_all_but(messages, hidden, renderer, stops),))
        return find_answers(messages, wanted, renderer, stops)
    except NoToolSyntax as error:
        return Rejection("no_tool_syntax", str(error))
    except TemplateError as error:
        return Rejection("template_refused", str(error))


def _tokenize(rendered: list[Rendered], tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
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


def _mask(found: Encoding, item: Rendered) -> np.ndarray:
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


def _tokenize_segments(item: Rendered, tokenizer: PreTrainedTokenizerBase) -> Sample:
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


def _fit(samples: Sequence[Sample], left_out: Sequence[str], tokens: TokensSpec) -> Encoded:
    fitted = [_fit_one(sample, tokens) for sample in samples]
    kept = [each for each in fitted if isinstance(each, Sample)]
    if not kept:
        return Encoded(next(each for each in reversed(fitted) if isinstance(each, Rejection)))
    lost, truncated = list(left_out), 0
    for whole, each in zip(samples, fitted, strict=True):
        if isinstance(each, Rejection):
            lost += [each.detail] * _num_answers(whole)
        elif len(each.ids) < len(whole.ids):
            cut = f"behind the first {len(each.ids)} of {len(whole.ids)} tokens (tokens.max_length)"
            lost += [cut] * (_num_answers(whole) - _num_answers(each))
            truncated += 1
    return Encoded(kept[0], truncated, tuple(kept[1:]), tuple(lost))


def _fit_one(sample: Sample, tokens: TokensSpec) -> Sample | Rejection:
    length = len(sample.ids)
    too_long = length > tokens.max_length
    if too_long and tokens.truncation == "drop":
        return Rejection("too_long", f"{length} tokens; tokens.max_length is {tokens.max_length}")
    if too_long:
        sample = Sample(sample.ids[: tokens.max_length].copy(), sample.mask[: tokens.max_length].copy())
    if _num_answers(sample):
        return sample
    if too_long:
        detail = f"no token to learn in the first {tokens.max_length} of {length} (tokens.max_length)"
        return Rejection("answer_cut", detail)
    return Rejection("no_answer", f"none of {length} tokens is to be learned")


def _num_answers(sample: Sample) -> int:
    """Runs of learned tokens; of a first token alone nothing is learned, since none before it could predict it."""
    starts = np.flatnonzero(sample.mask & ~np.concatenate([[False], sample.mask[:-1]]))
    return len(starts) - bool(len(starts) and starts[0] == 0 and not sample.mask[1:2].any())
