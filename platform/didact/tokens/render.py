"""Rendering many conversations: a template that only puts contents between fixed texts is run once a pattern of roles.

The template is run with contents that notice when it does anything with them but write them down; one that looks at
them, cuts them or quotes them is run for every conversation, as `TemplateContract.render` does.
"""

from collections.abc import Sequence
from typing import Any

import jinja2
import jinja2.nodes
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from didact.datasets.conversation import Message
from didact.errors import TemplateError
from didact.tokens.template import TemplateContract
from didact.tokens.tool_syntax import uses_tools

_Pattern = tuple[tuple[str, ...], bool]


class Renderer:
    """`TemplateContract.render` for one tokenizer, which remembers the fixed texts of each pattern of roles."""

    def __init__(self, contract: TemplateContract, tokenizer: PreTrainedTokenizerBase) -> None:
        self._contract, self._tokenizer = contract, tokenizer
        self._fixed: dict[_Pattern, list[str] | None] = {}

    def render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """The messages as text.

        Raises:
            TemplateError: as `TemplateContract.render`.
        """
        if uses_tools(messages):
            return self._contract.render(self._tokenizer, messages, add_generation_prompt)
        pattern = (tuple([message.role for message in messages]), add_generation_prompt)
        if pattern not in self._fixed:
            self._fixed[pattern] = self._fixed_texts(messages, add_generation_prompt)
        fixed = self._fixed[pattern]
        if fixed is None:
            return self._contract.render(self._tokenizer, messages, add_generation_prompt)
        pieces = [fixed[0]]
        for message, after in zip(messages, fixed[1:], strict=True):
            pieces += (message.content, after)
        return "".join(pieces)

    def _fixed_texts(self, messages: Sequence[Message], add_generation_prompt: bool) -> list[str] | None:
        """The texts before, between and behind the contents; None where these do not decide the whole."""
        probes = [_Probe(f" \n\"'<&>\\{{{number}}}é\t ") for number in range(len(messages))]
        asked = [Message(message.role, probe.plain) for message, probe in zip(messages, probes, strict=True)]
        watched = [{"role": message.role, "content": probe} for message, probe in zip(messages, probes, strict=True)]
        given = {**self._tokenizer.special_tokens_map, **self._contract.arguments}
        settings = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        try:
            rest = self._contract.render(self._tokenizer, asked, add_generation_prompt)
            # The public call hands templates plain copies, so it is the compiled template that meets the probes.
            template = _compile_jinja_template(self._contract.template)
            if template.environment.parse(self._contract.template).find(jinja2.nodes.Filter) is not None:
                return None  # filters make plain texts of what they are given
            seen = template.render(messages=watched, **settings, **given)
        except (TemplateError, jinja2.TemplateError):
            return None
        if seen != rest or any(probe.touched for probe in probes):
            return None
        fixed = []
        for probe in probes:
            before, found, rest = rest.partition(probe.plain)
            if not found:
                return None
            fixed.append(before)
        return None if any(probe.plain in text for probe in probes for text in [*fixed, rest]) else [*fixed, rest]


_HARMLESS = frozenset(("plain", "touched", "__class__", "__str__", "__html__", "__add__", "__radd__"))


class _Probe(str):
    """A text that remembers whether anything but writing it down was done with it."""

    plain: str
    touched: bool

    def __new__(cls, text: str) -> "_Probe":
        probe = super().__new__(cls, text)
        probe.plain, probe.touched = str.__str__(text), False
        return probe

    def __getattribute__(self, name: str) -> Any:
        if name not in _HARMLESS:
            object.__setattr__(self, "touched", True)
        return super().__getattribute__(name)

    def __str__(self) -> str:
        return self.plain

    def __add__(self, other: str) -> str:
        return self.plain + other

    def __radd__(self, other: str) -> str:
        return other + self.plain

    def _notice(self, name: str, *values: Any) -> Any:
        self.touched = True
        return getattr(str, name)(self.plain, *values)

    def __bool__(self) -> bool:
        self.touched = True
        return True

    def __len__(self) -> int:
        return self._notice("__len__")

    def __contains__(self, other: object) -> bool:
        return self._notice("__contains__", other)

    def __eq__(self, other: object) -> bool:
        return self._notice("__eq__", other)

    def __ne__(self, other: object) -> bool:
        return self._notice("__ne__", other)

    def __hash__(self) -> int:
        return self._notice("__hash__")

    def __getitem__(self, key: Any) -> str:
        return self._notice("__getitem__", key)

    def __iter__(self) -> Any:
        return self._notice("__iter__")

    def __mod__(self, values: Any) -> str:
        return self._notice("__mod__", values)

    def __mul__(self, count: Any) -> str:
        return self._notice("__mul__", count)

    def __lt__(self, other: str) -> bool:
        return self._notice("__lt__", other)

    def __gt__(self, other: str) -> bool:
        return self._notice("__gt__", other)
