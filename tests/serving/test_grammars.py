"""Answers held to a form: whatever a random model prefers, what it says fits."""

import asyncio
import importlib.util
import json
import re
from collections.abc import Iterator

import jsonschema
import pytest
import torch

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import Delta, EmbeddedEngine, GenerationRequest, Grammar, GrammarError, GrammarsMissing, Sampling
from didact.serving.engine.grammar import lark, matcher
from didact.serving.engine.grammar.matcher import Grammars
from didact.serving.engine.sampling import Sampler
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import PROMPTS, answer, oracle, request
from tests.fakes.models import tiny_model

END = byte_tokenizer().eos_token_id
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "bb", "ccc"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "boolean"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["v", "kids"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
needs_llguidance = pytest.mark.skipif(importlib.util.find_spec("llguidance") is None, reason="needs didact[grammar]")


@pytest.fixture(scope="module")
def engine() -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer())
    yield engine
    engine.close()


def pieces(engine: EmbeddedEngine, *wanted: GenerationRequest) -> list[list[Delta]]:
    async def read(each: GenerationRequest) -> list[Delta]:
        return [delta async for delta in engine.generate(each)]

    async def all_of_them() -> list[list[Delta]]:
        return await asyncio.gather(*map(read, wanted))

    return asyncio.run(all_of_them())


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def held(grammar: Grammar, seed: int = 0, tokens: int = 900, temperature: float = 3.0, **fields) -> GenerationRequest:
    sampling = Sampling(temperature=temperature, seed=seed, **fields.pop("sampling", {}))
    return request(PROMPTS[seed % 5], tokens=tokens, grammar=grammar, sampling=sampling, **fields)


@needs_llguidance
def test_random_models_write_json_that_fits_its_schema(engine: EmbeddedEngine) -> None:
    bias = tuple((token, -100.0) for token in byte_tokenizer().encode(" \t\r\n", add_special_tokens=False))
    few = {"sampling": {"logit_bias": bias}}
    people, trees = lark.json_of(PERSON, "f"), lark.json_of(TREE, "f")
    found = pieces(
        engine, *(held(people, seed, **few) for seed in range(3)), *(held(trees, seed, 99, **few) for seed in range(5))
    )
    ended = [deltas[-1].finish_reason == "stop" for deltas in found]
    for index, deltas in enumerate(found):
        if ended[index]:
            jsonschema.validate(json.loads(text(deltas)), PERSON if index < 3 else TREE)
    assert all(ended[:3])
    assert any(ended[3:])  # a random tree may well grow for ever


@needs_llguidance
@pytest.mark.parametrize(
    ("grammar", "fits"),
    [
        (lark.one_of(("yes", "no", 'a "b"\n'), "f"), r'yes|no|a "b"\n'),
        (lark.matching(r"[ab]{3}/\d\/x", "f"), r"[ab]{3}/\d/x"),
        (lark.written('root ::= "x" [0-9] "y"?', "f"), r"x[0-9]y?"),
        (lark.written('start: A B\nA: "u"\nB: /v+w/', "f"), r"uv+w"),
    ],
)
def test_texts_patterns_and_grammars_are_held_to(engine: EmbeddedEngine, grammar: Grammar, fits: str) -> None:
    for deltas in pieces(engine, *(held(grammar, seed) for seed in range(3))):
        assert deltas[-1].finish_reason == "stop"
        assert re.fullmatch(fits, text(deltas))


@needs_llguidance
def test_rows_beside_one_with_a_grammar_answer_as_ever(engine: EmbeddedEngine) -> None:
    plain = [request(prompt, tokens=20) for prompt in PROMPTS[:3]]

    async def both() -> list[list[int]]:
        asked = [held(lark.json_of(PERSON, "f"), 1, 60), *plain]
        return await asyncio.gather(*(answer(engine, each) for each in asked))

    assert asyncio.run(both())[1:] == [oracle("llama", each) for each in plain]


@needs_llguidance
def test_what_a_grammar_gives_is_the_likeliest_of_what_it_allows(engine: EmbeddedEngine) -> None:
    """Greedy, against the model's own logits, token by token."""
    letters = [byte_tokenizer().encode(letter, add_special_tokens=False)[0] for letter in "0123456789"]
    wanted = held(lark.matching("[0-9]{6}", "f"), temperature=0.0, logprobs=2)
    (deltas,) = pieces(engine, wanted)
    model, ids = tiny_model(), list(wanted.prompt_ids)
    for delta in deltas[:6]:
        logits = model(torch.tensor([ids])).logits[0, -1]
        best = max(letters, key=lambda token: float(logits[token]))
        assert delta.token_ids == (best,)
        (told,) = delta.logprobs  # the model's own, of all tokens
        assert told.logprob == pytest.approx(float(logits.log_softmax(-1)[best]), abs=1e-4)
        assert told.top[0][0] == int(logits.argmax())
        ids.append(best)
    assert deltas[6].token_ids == (END,)


@needs_llguidance
def test_a_grammar_goes_with_stop_texts_least_lengths_and_repeats(engine: EmbeddedEngine) -> None:
    digits = lark.matching("1{12}", "f")
    one = byte_tokenizer().encode("1", add_special_tokens=False)[0]
    stopped, least, once, cut, biased = pieces(
        engine,
        held(digits, stop=("111",)),
        held(lark.one_of(("1",), "f"), min_tokens=5),
        held(digits, sampling={"no_repeat_ngram_size": 1, "top_k": 2, "min_p": 0.1, "top_p": 0.5}),
        held(digits, tokens=4),
        held(lark.matching("[12]{5}", "f"), sampling={"logit_bias": ((one, 100.0),)}),
    )
    assert (text(stopped), stopped[-1].stop_text) == ("", "111")
    assert (text(least), least[-1].finish_reason) == ("1", "stop")
    assert text(once) == "1" * 12
    assert (text(cut), cut[-1].finish_reason) == ("1111", "length")
    assert text(biased) == "11111"


def test_forbidden_tokens_give_way_where_nothing_else_is_allowed() -> None:
    sampler, allowed = Sampler(Sampling(), torch.device("cpu")), torch.tensor([False, True, True])
    logits = torch.tensor([9.0, 1.0, 2.0])
    assert sampler.draw(logits, [], allowed=allowed) == 2
    assert sampler.draw(logits, [], (2,), allowed) == 1
    assert sampler.draw(logits, [], (1, 2), allowed) == 2


HOSTILE = {
    "deep": ({"type": "object", "properties": {"a": {}}}, "recursion limit"),
    "branches": (
        {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {"type": "string"}}} for j in range(3)]} for i in range(6)]},
        "Too many items",
    ),
    "pattern": ({"type": "string", "pattern": "^(?=a)b$"}, "look-around"),
    "unknown": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "remote": ({"$ref": "http://example.com/x"}, "example.com"),
    "nothing": ({"type": "array", "minItems": 3, "maxItems": 2}, "Unsatisfiable"),
    "kind": ({"type": "foo"}, "Invalid type"),
}
for _ in range(200):
    HOSTILE["deep"] = ({"type": "object", "properties": {"a": HOSTILE["deep"][0]}}, HOSTILE["deep"][1])


@needs_llguidance
@pytest.mark.parametrize("name", list(HOSTILE))
def test_what_cannot_be_followed_is_refused_with_the_reason(engine: EmbeddedEngine, name: str) -> None:
    schema, reason = HOSTILE[name]
    with pytest.raises(GrammarError, match=reason) as caught:
        pieces(engine, held(lark.json_of(schema, "response_format.json_schema.schema")))
    assert str(caught.value).startswith("response_format.json_schema.schema: ")
    assert "%json" not in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(GrammarError, match=f"other: .*{reason}"):  # refused again, from what was kept
        pieces(engine, held(lark.json_of(schema, "other")))


@needs_llguidance
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"s": {"type": "string", "maxLength": 10_000}}, "required": ["s"]},
        {"type": "string", "minLength": 9_000, "maxLength": 10_000},
        {"enum": [f"value {number}" for number in range(2_000)]},
        {"type": "string", "pattern": "^(((a{1,100}){1,100}){1,100})$"},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10_000},
    ],
)
def test_large_schemas_are_followed(engine: EmbeddedEngine, schema: dict) -> None:
    (deltas,) = pieces(engine, held(lark.json_of(schema, "f"), tokens=20))
    assert len([token for delta in deltas for token in delta.token_ids]) > 1


@needs_llguidance
def test_an_answer_that_grows_too_dear_fails_alone(engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matcher._LIMITS, "max_lexer_states", 60)

    async def both() -> list:
        dear = held(lark.matching("[ab]*a[ab]{400}", "guided_regex"), 1)
        fine = request(PROMPTS[0], tokens=20)
        return await asyncio.gather(answer(engine, dear), answer(engine, fine), return_exceptions=True)

    dear, fine = asyncio.run(both())
    assert isinstance(dear, GrammarError)
    assert str(dear).startswith("guided_regex: ")
    assert fine == oracle("llama", request(PROMPTS[0], tokens=20))


@needs_llguidance
def test_the_grammars_that_were_asked_for_last_are_kept() -> None:
    grammars = Grammars(byte_tokenizer(), 272)

    async def ask() -> None:
        for number in range(70):
            await grammars.constraint(lark.one_of((str(number),), "f"))

    asyncio.run(ask())
    assert len(grammars) == 64
    slow = Grammars(byte_tokenizer(), 272, seconds=0.0)
    with pytest.raises(GrammarError, match="f: not read in 0 seconds"):
        asyncio.run(slow.constraint(lark.json_of(PERSON, "f")))
    for each in (grammars, slow):
        each.close()


@needs_llguidance
def test_answers_to_one_grammar_do_not_share_their_place(engine: EmbeddedEngine) -> None:
    grammar = lark.matching("[a-z]{10}", "f")
    first, second = pieces(engine, held(grammar, 0), held(grammar, 5))
    assert text(first) != text(second)
    assert all(re.fullmatch("[a-z]{10}", text(each)) for each in (first, second))


def test_without_the_library_a_grammar_is_refused_with_what_to_install(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GrammarsMissing, match=r"^response_format: .*pip install 'didact\[grammar\]'"):
        pieces(engine, held(lark.any_object("response_format")))
    assert not engine.takes_grammars


@needs_llguidance
@pytest.mark.parametrize("begun", [True, False])
def test_thoughts_come_before_what_is_held_to(begun: bool) -> None:
    grammar = lark.behind_thoughts(lark.one_of(("yes",), "f"), ("<think>", "</think>"), begun)
    tokenizer = byte_tokenizer()

    def ends(words: str) -> tuple[bool, bool]:
        """Whether the words are allowed, and whether they are a whole answer."""
        constraint = asyncio.run(grammars.constraint(grammar))
        for token in tokenizer.encode(words, add_special_tokens=False):
            if not constraint.allowed(())[token]:
                return False, False
            constraint.take(token)
        return True, bool(constraint.allowed((END,))[END])

    grammars = Grammars(tokenizer, 272)
    thought = 'hm "no" {</think>\n\n'
    assert ends(thought + "yes" if begun else f"<think>{thought}yes") == (True, True)
    assert ends("yes") == (True, not begun)
    assert ends("no")[0] is begun
    assert ends(thought + "no" if begun else f"<think>{thought}no") == (False, False)
    grammars.close()


@needs_llguidance
@pytest.mark.parametrize(
    ("form", "name", "good", "bad"),
    [
        ("hermes", "add", '{"a": 12}}\n</tool_call>', '{"a": "x"}}\n</tool_call>'),
        ("hermes", "", 'add", "arguments": {"a": 1}}\n</tool_call>', 'sub", "arguments": {}}\n</tool_call>'),
        ("mistral", "", 'say", "arguments": {}}, {"name": "add", "arguments": {"a": 1}}]', 'say", "arguments": []}]'),
        ("mistral", "add", '{"a": 1}}]', '{"a": 1}}'),
        ("llama3", "", 'add", "parameters": {"a": 1}}', 'add", "arguments": {"a": 1}}'),
    ],
)
def test_calls_are_held_to_their_functions(form: str, name: str, good: str, bad: str) -> None:
    integer = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    # Of `say` nothing is known, and what no grammar can say is left out where the function is not strict.
    functions = [{"name": "add", "parameters": {**integer, "not": {}}}, {"name": "say"}]
    tokenizer, grammars = byte_tokenizer(), Grammars(byte_tokenizer(), 272)

    def fits(words: str) -> bool:
        constraint = asyncio.run(grammars.constraint(lark.calls_of(form, functions, name)))
        for token in tokenizer.encode(words, add_special_tokens=False):
            if not constraint.allowed(())[token]:
                return False
            constraint.take(token)
        return bool(constraint.allowed((END,))[END])

    assert fits(good)
    assert not fits(bad)
    functions[0]["strict"] = True
    with pytest.raises(GrammarError, match=r"tools: .*not"):
        fits(good)
    grammars.close()
