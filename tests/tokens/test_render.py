"""The quick ways to text and mask are the plain ones: same text, same ids, same mask."""

from typing import Any

import numpy as np
import pytest
from jinja2 import nodes
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from didact.datasets import Conversation, Message
from didact.datasets.rows.decoding import parse_json
from didact.datasets.rows.raw_row import BadRow
from didact.gpu_proof.tokenizer import CHATML, byte_tokenizer
from didact.spec import TokensSpec
from didact.tokens import Sample, TemplateContract, encode_all
from didact.tokens.byte_level import samples_by_bytes
from didact.tokens.render import Renderer

TEXTS = [" hi ", "好🎉", "{{ x }}", "", "a</think>b", 'say "x"\n\\', "<|im|>"]
CONTENT = "message['content']"
TEMPLATES = {
    "chatml": (CHATML, True),
    "kind of value": (CHATML.replace(CONTENT, f"({CONTENT} if {CONTENT} is string else '')"), None),
    "trim": (CHATML.replace(CONTENT, f"{CONTENT} | trim"), False),
    "strip": (CHATML.replace(CONTENT, f"{CONTENT}.strip()"), False),
    "split": (CHATML.replace(CONTENT, f"{CONTENT}.split('</think>')[-1]"), False),
    "slice": (CHATML.replace(CONTENT, f"{CONTENT}[:9]"), False),
    "replace": (CHATML.replace(CONTENT, f"{CONTENT} | replace('a', 'b')"), False),
    "json": (CHATML.replace(CONTENT, f"{CONTENT} | tojson"), False),
    "empty": (CHATML.replace(CONTENT, f"({CONTENT} or 'nothing')"), False),
    "length": (CHATML.replace(CONTENT, f"({CONTENT} | length) ~ {CONTENT}"), False),
    "look": (CHATML.replace(CONTENT, f"('T' if 'think' in {CONTENT} else 'F') ~ {CONTENT}"), False),
    "compare": (CHATML.replace(CONTENT, f"('E' if {CONTENT} == '' else 'F') ~ {CONTENT}"), False),
    "twice": (CHATML.replace(CONTENT, f"{CONTENT} ~ {CONTENT}"), False),
}


def talks() -> list[Conversation]:
    talks = []
    for row, text in enumerate(TEXTS * 2):
        turns = [Message("user", text), Message("assistant", TEXTS[(row + 3) % 7]), Message("user", "go on")]
        turns += [Message("assistant", f"yes {text}")]
        talks.append(Conversation(tuple([Message("system", text)] * (row % 3 == 0) + turns), row))
    return talks


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_template_renders_as_it_does_row_by_row(kind: str) -> None:
    template, is_fixed = TEMPLATES[kind]
    assert kind == "chatml" or template != CHATML
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    contract = TemplateContract.build(tokenizer, "model")
    renderer = Renderer(contract, tokenizer)
    for talk in talks():
        for count in range(1, len(talk.messages) + 1):
            for prompt in (True, False):
                messages = talk.messages[:count]
                assert renderer.render(messages, prompt) == contract.render(tokenizer, messages, prompt)
    if is_fixed is not None:
        assert {fixed is not None for fixed in renderer._fixed.values()} == {is_fixed}


def test_transformers_still_has_the_private_compiler_of_templates_that_render_relies_on() -> None:
    compiled = chat_template_utils._compile_jinja_template(CHATML)
    messages = [{"role": "user", "content": "hi"}]
    expected = byte_tokenizer().apply_chat_template(messages, tokenize=False)
    assert compiled.render(messages=messages, add_generation_prompt=False) == expected
    assert compiled.environment.parse("{{ a | trim }}").find(nodes.Filter) is not None


def plain_mask(text: str, spans: list[tuple[int, int]], tokenizer: Any) -> tuple[list[int], np.ndarray]:
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    bounds = np.array(found["offset_mapping"]).reshape(-1, 2)
    mask = np.zeros(len(bounds), dtype=bool)
    for start, end in spans:
        mask |= (bounds[:, 1] > start) & (bounds[:, 0] < end)
    return found["input_ids"], mask


@pytest.mark.parametrize("choice", ["model", "alpaca"])
def test_ids_and_masks_are_those_of_the_plain_tokenizer(choice: str) -> None:
    tokenizer = byte_tokenizer()
    # What an earlier call leaves behind must not matter.
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    contract = TemplateContract.build(tokenizer, choice)
    rows = [
        Conversation((Message("user", question), Message("assistant", answer)), row)
        for row, (question, answer) in enumerate([("hi", "好🎉"), ("é", " x "), ("🎉", "long\n\nanswer")])
    ]
    for row, encoded in zip(rows, encode_all(rows, tokenizer, contract, TokensSpec()), strict=True):
        text = contract.render(tokenizer, row.messages, False)
        header = contract.render(tokenizer, row.prompt, True)
        end = text.index("<|im_end|>", len(header)) + len("<|im_end|>")
        ids, mask = plain_mask(text, [(len(header), end)], tokenizer)
        assert isinstance(encoded.result, Sample)
        assert encoded.result.ids.tolist() == ids and encoded.result.mask.tolist() == mask.tolist()


@pytest.mark.parametrize("kept", [True, False])
def test_places_told_by_lengths_are_those_the_tokenizer_keeps(kept: bool) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Merges that cross the edges of words and of letters of several bytes; é is \xc3\xa9.
    merges = [("Ġ", "a"), ("a", "b"), ("Ã", "©"), ("Ĭ", "a"), ("b", "Ã"), ("ð", "Ł")]
    vocabulary = {text: number for number, text in enumerate([*letters, *map("".join, merges)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if not kept:
        backend.normalizer = normalizers.NFKC()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=["<é>"])
    texts = [" a ab\na", "abé é🎉b🎉", "<é>a<é>", "", "é"]
    spans = [[(start, end)] for start in range(9) for end in range(start + 1, 9)]
    for within in [*spans, [(0, 1), (2, 3)]]:
        inside = [[(start, end) for start, end in within if end <= len(text)] for text in texts]
        found = samples_by_bytes(texts, inside, tokenizer)
        assert (found is not None) == kept
        for text, each, sample in zip(texts, inside, found or (), strict=False):
            ids, mask = plain_mask(text, each, tokenizer)
            assert sample.ids.tolist() == ids and sample.mask.tolist() == mask.tolist(), (text, each)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": "b\\"c", "d": ""}',
        b'{"a\\"": "b"}',
        b'{"a": "b\\\\"}',
        b'{"a": "\\u4e2d\xe4\xb8\xad"}',
        b'{"a": {"b": "c"}}',
        b'{"a": 1e400}',
        b'{"a": "b", "c": 12345678901234567890123}',
        b'  {"a": "b"}\t',
        b"{}",
    ],
)
def test_quick_parsing_reads_the_same(raw: bytes) -> None:
    import json

    assert parse_json(raw) == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [b'{"a": "b", "a": "c"}', b'{"a": "\\"", "a": "\\"\\""}', b'{"a": NaN}', b'{"a": "\\ud83d"}x', b'{"a":"\x00"}'],
)
def test_quick_parsing_refuses_the_same(raw: bytes) -> None:
    with pytest.raises(BadRow):
        parse_json(raw)
