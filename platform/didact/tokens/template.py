"""The template contract: how messages become prompt text, which tokens end an answer, and proof that it is unchanged.

It is stored with every adapter and compared wherever the adapter is used, so that a model is never asked in another
form than it was taught.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import jinja2.meta
from transformers import PreTrainedTokenizerBase

from didact import files
from didact.adapter_folder import CONTRACT
from didact.datasets.conversation import Message
from didact.errors import NoToolSyntax, TemplateError
from didact.logs import get_logger
from didact.spec import NAMED_TEMPLATES, TokensSpec, chat_environment, check_syntax, read_template
from didact.tokens.tool_syntax import TEMPLATE_ERRORS, render_with_tools, uses_tools

log = get_logger(__name__)

CONTRACT_FILE = CONTRACT
_ALPACA = (
    "{%- set ns = namespace(preamble='Read the instruction and write a response that carries it out.') -%}"
    "{%- for message in messages if message['role'] == 'system' -%}"
    "{%- set ns.preamble = message['content'] -%}"
    "{%- endfor -%}"
    "{{- ns.preamble -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '\n\n### Instruction:\n' + message['content'] -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '\n\n### Response:\n' + message['content'] + eos_token -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '\n\n### Response:\n' -}}{%- endif -%}"
)
_GIVEN = {
    *("messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now"),
    *("bos_token", "eos_token", "pad_token", "unk_token"),
}
"""What every template is given, and is no argument."""
_PROBE = (Message("user", "ping"), Message("assistant", "pong"))


@dataclass(frozen=True)
class TemplateContract:
    """Everything that decides how a conversation reads as tokens and where an answer stops."""

    template: str
    """The chat template, as Jinja text."""
    tokenizer_sha256: str
    """Digest of the tokenizer: vocabulary, merges, normalisation, added tokens."""
    special_tokens: dict[str, int | None]
    """Token ids of `bos`, `eos` and `pad`."""
    stop_token_ids: tuple[int, ...]
    """Tokens that end an answer: the tokenizer's EOS and the mark with which the template ends an assistant turn."""
    generation: dict[str, Any] = field(default_factory=dict)
    """Defaults for sampling that belong to the model, such as `temperature`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What the template is given beside messages and tools, such as `enable_thinking`."""

    @classmethod
    def build(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        choice: str,
        generation: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> "TemplateContract":
        """The contract of a tokenizer.

        Args:
            tokenizer: the base model's tokenizer.
            choice: `model` for its own chat template, `alpaca` for the Alpaca prompt, `auto` for the first that exists;
                or a Jinja file or text, see `tokens.template`.
            generation: sampling defaults to keep with it.
            arguments: what the template is given beside messages and tools.

        Raises:
            TemplateError: no usable template for this choice, broken syntax, or an argument that it does not read.
        """
        template = _choose(tokenizer, choice)
        if arguments:
            _check_arguments(template, arguments)
        special = {
            "bos": tokenizer.bos_token_id,
            "eos": tokenizer.eos_token_id,
            "pad": tokenizer.pad_token_id,
        }
        draft = cls(template, tokenizer_digest(tokenizer), special, (), dict(generation or {}), dict(arguments or {}))
        return replace(draft, stop_token_ids=_stop_tokens(draft, tokenizer))

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, tokens: TokensSpec) -> "TemplateContract":
        """The contract of a tokenizer under a recipe's `tokens`; raises as `build`."""
        return cls.build(tokenizer, tokens.template, arguments=tokens.template_arguments)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over all fields."""
        return files.fingerprint(self._fields())

    @property
    def standalone(self) -> str:
        """The template for engines that know no arguments: they are its defaults, and may be given all the same."""
        lines = [
            f"{{%- set {name} = {name} if {name} is defined else {_as_jinja(value)} -%}}"
            for name, value in self.arguments.items()
        ]
        # What follows a block loses its first line break, so an empty expression stands between.
        return "".join(lines) + "{{- '' }}" + self.template if lines else self.template

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(self._fields(), indent=2, ensure_ascii=False) + "\n"

    def _fields(self) -> dict[str, Any]:
        # Contracts without arguments are written as they were before there were any: their digests stay.
        return {name: value for name, value in asdict(self).items() if name != "arguments" or value}

    @classmethod
    def from_json(cls, text: str) -> "TemplateContract":
        """The contract written by `to_json`.

        Raises:
            TemplateError: not a JSON object with exactly these fields.
        """
        try:
            values = json.loads(text)
            return cls(**{**values, "stop_token_ids": tuple(values["stop_token_ids"])})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            names = ", ".join(entry.name for entry in fields(cls))
            raise TemplateError(f"not a template contract ({error}); expected a JSON object with {names}") from error

    def save(self, folder: Path) -> Path:
        """Write `template_contract.json` into `folder`; returns its path."""
        files.write_text(folder / CONTRACT_FILE, self.to_json())
        return folder / CONTRACT_FILE

    @classmethod
    def load(cls, folder: Path) -> "TemplateContract":
        """Read `template_contract.json` from `folder`.

        Raises:
            TemplateError: the file is absent or not a contract.
        """
        path = folder / CONTRACT_FILE
        if not path.is_file():
            raise TemplateError(f"{path} is missing; an adapter carries the template contract it was trained with")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except TemplateError as error:
            raise TemplateError(f"{path}: {error}") from error

    def check(self, other: "TemplateContract", where: str) -> None:
        """Refuse `other` when it differs from this contract.

        Args:
            other: the contract in use.
            where: what `other` belongs to, for the message.

        Raises:
            TemplateError: names every field that differs, with both values.
        """
        mine, others = asdict(self), asdict(other)
        different = [name for name in mine if mine[name] != others[name]]
        if different:
            lines = [f"  - {name}: expected {_short(mine[name])}, found {_short(others[name])}" for name in different]
            raise TemplateError(
                f"{where}: the template contract differs in {', '.join(different)}\n" + "\n".join(lines)
            )

    def render(
        self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool
    ) -> str:
        """The messages as prompt text, with the header of the next answer when `add_generation_prompt`.

        Raises:
            TemplateError: the template refuses these messages (some allow no system turn, for example).
        """
        try:
            if uses_tools(messages):
                variables = {**tokenizer.special_tokens_map, **self.arguments}
                return render_with_tools(self.template, variables, messages, add_generation_prompt)
            return tokenizer.apply_chat_template(
                _plain(messages),
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.arguments,
            )
        except NoToolSyntax:
            raise
        except TEMPLATE_ERRORS as error:
            roles = ", ".join(message.role for message in messages)
            raise TemplateError(f"the chat template refuses turns of {roles}: {error}") from error

    def prompt_ids(
        self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of the prompt that asks for the next answer; without `add_generation_prompt`, of the turns alone.

        The text of a special token inside a message is encoded as plain text: a user cannot forge a turn.

        Raises:
            TemplateError: the template refuses these messages, or the tokenizer cannot write such text plainly.
        """
        text = self.render(tokenizer, messages, add_generation_prompt=add_generation_prompt)
        forged = special_text(tokenizer)
        if not any(forged.search(message.written) for message in messages):
            return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if uses_tools(messages):
            raise TemplateError("a turn of a conversation with tools holds the text of a special token")
        try:
            return tokenizer.apply_chat_template(
                _plain(messages),
                chat_template=self.template,
                add_generation_prompt=add_generation_prompt,
                return_dict=False,
                sanitize_control_tokens=True,
                **self.arguments,
            )
        except ValueError as error:
            raise TemplateError(f"a message holds the text of a special token: {error}") from error


_DIGESTS: dict[str, str] = {}
"""Digests of tokenizers, by those of what they write about themselves, which takes six times as long to parse."""


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex sha256 of what decides a tokenizer's ids, the same before and after saving it."""
    if tokenizer.is_fast:
        text = tokenizer.backend_tokenizer.to_str()
        known = files.sha256_text(text)
        if known not in _DIGESTS:
            parts = json.loads(text)
            # These two are left behind by the last call with padding or truncation, and decide no ids here.
            parts.pop("truncation", None)
            parts.pop("padding", None)
            _DIGESTS[known] = files.fingerprint(parts)
        return _DIGESTS[known]
    added = {str(token): index for token, index in tokenizer.get_added_vocab().items()}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return files.fingerprint({"vocab": tokenizer.get_vocab(), "added": added, "special": special})


def special_text(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Finds, in a message, text that the tokenizer would read as a special token."""
    texts = sorted(text for text in _special_tokens(tokenizer).values() if text.strip())
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def _choose(tokenizer: PreTrainedTokenizerBase, choice: str) -> str:
    if choice not in NAMED_TEMPLATES:
        return _dated(read_template(choice))
    if choice == "alpaca" or (choice == "auto" and not tokenizer.chat_template):
        if tokenizer.eos_token is None:
            raise TemplateError("the Alpaca prompt ends answers with the tokenizer's eos_token, and it has none")
        # Some bases want BOS first; whether they do shows only in what their tokenizer adds by itself.
        starts_with_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        return ("{{- bos_token -}}" if starts_with_bos else "") + _ALPACA
    if not tokenizer.chat_template:
        raise TemplateError("the base model's tokenizer has no chat template; set tokens.template to alpaca")
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise TemplateError(f"no chat template can be chosen ({error}); set tokens.template to alpaca") from error
    check_syntax(template, "the base model's chat template")
    return _dated(template)


def _dated(template: str) -> str:
    if "strftime_now" in template:
        log.warning("the chat template writes today's date into prompts; cached tokens keep the day they were made")
    return template


def _check_arguments(template: str, arguments: Mapping[str, Any]) -> None:
    environment = chat_environment()
    read = jinja2.meta.find_undeclared_variables(environment.parse(template))
    known = sorted(read - environment.globals.keys() - _GIVEN)
    for name in arguments:
        if name not in known:
            reads = f"it reads {', '.join(known)}" if known else "it reads none"
            raise TemplateError(f"tokens.template_arguments.{name}: the chat template knows no such argument; {reads}")


def _as_jinja(value: Any) -> str:
    """A plain value as Jinja writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_as_jinja(key)}: {_as_jinja(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_jinja, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _stop_tokens(contract: TemplateContract, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    text = contract.render(tokenizer, _PROBE, add_generation_prompt=False)
    _, found, tail = text.rpartition(_PROBE[-1].content)
    if not found:
        raise TemplateError("the chat template does not write the assistant's text; set tokens.template to alpaca")
    special = _special_tokens(tokenizer)
    tail_ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
    end_mark = next((index for index in tail_ids if index in special), None)
    if end_mark is None:
        log.warning("the chat template ends answers without a special token, so a model cannot learn from it to stop")
    return tuple(dict.fromkeys(index for index in (tokenizer.eos_token_id, end_mark) if index is not None))


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Id -> text of the tokens that never stand for written text."""
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    added = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {**named, **added}


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
