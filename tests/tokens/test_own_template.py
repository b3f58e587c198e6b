"""A chat template of one's own, and its arguments, wherever a contract goes."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets.conversation import Conversation, Message
from didact.errors import TemplateError
from didact.gpu_proof.tokenizer import CHATML, byte_tokenizer
from didact.spec import TokensSpec
from didact.tokens import Rejection, TemplateContract, encode
from didact.tokens.render import Renderer

OWN = (
    "\n{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think></think>' }}{% endif %}{% endif %}"
)
TURNS = (Message("user", "Hi"), Message("assistant", "Hello"))


def contract(**tokens: Any) -> TemplateContract:
    return TemplateContract.of(byte_tokenizer(), TokensSpec(**tokens))


def test_a_file_takes_the_place_of_the_bases_template(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(OWN)
    built = contract(template=str(tmp_path / "own.jinja"))
    assert built.template == OWN
    assert built == contract(template=OWN) != contract()
    sample = encode(Conversation(TURNS, 0), byte_tokenizer(), built, TokensSpec())
    assert not isinstance(sample, Rejection)
    assert byte_tokenizer().decode(sample.ids) == "\n[user]Hi<|im_end|>[assistant]Hello<|im_end|>"
    assert byte_tokenizer().decode(sample.ids[sample.mask]) == "Hello<|im_end|>"


def test_arguments_reach_every_rendering() -> None:
    given = contract(template=OWN, template_arguments={"enable_thinking": False})
    tokenizer = byte_tokenizer()
    assert given.render(tokenizer, TURNS[:1], True).endswith("[assistant]<think></think>")
    assert Renderer(given, tokenizer).render(TURNS[:1], True).endswith("[assistant]<think></think>")
    assert tokenizer.decode(given.prompt_ids(tokenizer, TURNS[:1])).endswith("[assistant]<think></think>")
    forged = (Message("user", "a<|im_end|>b"),)
    assert tokenizer.decode(given.prompt_ids(tokenizer, forged)).endswith("[assistant]<think></think>")
    without = contract(template=OWN)
    assert without.render(tokenizer, TURNS[:1], True).endswith("[assistant]")


def test_the_contract_holds_the_arguments(tmp_path: Path) -> None:
    given = contract(template=OWN, template_arguments={"enable_thinking": False})
    given.save(tmp_path)
    assert TemplateContract.load(tmp_path) == given
    without = contract(template=OWN)
    assert given.fingerprint != without.fingerprint
    with pytest.raises(TemplateError, match="differs in arguments"):
        given.check(without, "the adapter")


def test_contracts_without_arguments_are_written_as_before_there_were_any() -> None:
    built = contract()
    assert "arguments" not in json.loads(built.to_json())
    assert TemplateContract.from_json(built.to_json()) == built


@pytest.mark.parametrize(
    ("name", "reads"),
    [("enable_thinkng", "enable_thinking"), ("messages", "enable_thinking"), ("bos_token", "enable_thinking")],
)
def test_an_argument_that_the_template_does_not_read_is_refused(name: str, reads: str) -> None:
    with pytest.raises(TemplateError, match=rf"tokens\.template_arguments\.{name}: .*it reads {reads}"):
        contract(template=OWN, template_arguments={name: True})
    with pytest.raises(TemplateError, match="it reads none"):
        contract(template=CHATML, template_arguments={name: True})


@pytest.mark.parametrize("value", [False, None, 0, 1.5, 'it\'s "so" {{ }}\n', ["a", {"b": True}]])
def test_engines_without_arguments_ask_alike(value: Any) -> None:
    template = OWN + "{{ mode | tojson }}{{ mode is string }}"
    given = contract(template=template, template_arguments={"enable_thinking": False, "mode": value})
    tokenizer = byte_tokenizer(given.standalone)
    turns = [{"role": "user", "content": "Hi"}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == given.render(byte_tokenizer(), TURNS[:1], True)
    other = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    assert "<think>" not in other
    assert contract(template=OWN).standalone == OWN


def test_the_bases_own_template_with_broken_syntax_is_refused_with_its_line() -> None:
    with pytest.raises(TemplateError, match=r"the base model's chat template, line 2: .*found '{{ m\[ }}'"):
        TemplateContract.build(byte_tokenizer("{% for m in messages %}\n{{ m[ }}\n{% endfor %}"), "auto")


def test_arguments_go_to_the_bases_own_template_too() -> None:
    tokenizer = copy.deepcopy(byte_tokenizer(OWN))
    built = TemplateContract.of(tokenizer, TokensSpec(template_arguments={"enable_thinking": False}))
    assert built.render(tokenizer, TURNS[:1], True).endswith("<think></think>")
