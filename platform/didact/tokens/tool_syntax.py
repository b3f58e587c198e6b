"""Turns with tools as chat templates read them, and proof that a template writes all of it.

Templates differ in what they read: arguments as an object or as text, the text of a turn that only calls as "" or as
null, ids of any form or of nine letters (Mistral). Many leave calls or tools out without a word. So each template is
tried once, for each kind of conversation, with words that occur nowhere else. The first way in which it writes them all
is taken; where there is none, the conversation is refused, with what would be missing.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, product
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from didact.datasets.conversation import Message, ToolCall, ToolUse
from didact.errors import NoToolSyntax

TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What a template raises that refuses a conversation or was not written for it."""
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}\Z")


@dataclass(frozen=True, slots=True)
class Writing:
    """How a template wants to be given calls and results."""

    as_text: bool = False
    """Arguments as JSON text, and not as an object."""
    empty: str | None = ""
    """The text of a turn that only calls."""
    short_ids: bool = False
    """Ids of nine letters and digits in place of the row's own."""


_WRITINGS = tuple(Writing(*each) for each in product((False, True), ("", None), (False, True)))


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a conversation has that a template may leave out."""

    system: bool
    offered: bool
    silent_calls: bool
    """Calls without text."""
    spoken_calls: bool
    """Calls beside text."""
    parallel: bool
    """Several calls in one turn."""
    results: bool
    short_ids: bool


def uses_tools(messages: Sequence[Message]) -> bool:
    """Whether any turn has to do with tools."""
    return any(message.tools is not None or message.role == "tool" for message in messages)


def render_with_tools(
    template: str, variables: dict[str, Any], messages: Sequence[Message], add_generation_prompt: bool
) -> str:
    """Messages with tools as prompt text, in the way in which the template writes all of them.

    Args:
        template: Jinja text.
        variables: what it is given beside messages and tools.
        messages: at least one of which has to do with tools.
        add_generation_prompt: whether the header of the next answer follows.

    Raises:
        NoToolSyntax: the template leaves something out in every way, or refuses; says what.
    """
    found = _writing(template, json.dumps(variables), _kind(messages))
    if isinstance(found, str):
        raise NoToolSyntax(found)
    return _render(template, {**variables, "add_generation_prompt": add_generation_prompt}, messages, found)


def _render(template: str, variables: dict[str, Any], messages: Sequence[Message], writing: Writing) -> str:
    # Not the tokenizer's own call, which leaves out what is null, and some templates know calls by it.
    [text], _ = render_jinja_template(
        [_values(messages, writing)], tools=_offered(messages), chat_template=template, **variables
    )
    return text


@lru_cache(maxsize=256)
def _writing(template: str, variables: str, kind: _Kind) -> Writing | str:
    """The first way that loses nothing, or what is lost in the best one."""
    messages = list(_example(kind))
    refusal, lost_least = "", None
    for writing in _WRITINGS:
        try:
            text = _render(template, json.loads(variables), messages, writing)
        except TEMPLATE_ERRORS as error:
            refusal = refusal or str(error)
            continue
        lost = [what for word, what in _WORDS.items() if word in str(messages) and word not in text]
        if not lost:
            return writing
        if lost_least is None or len(lost) < len(lost_least):
            lost_least = lost
    if lost_least is None:
        return f"the chat template refuses turns with tools: {refusal}"
    return f"the chat template does not write {', '.join(dict.fromkeys(lost_least))}"


_WORDS = {
    "zqsystem": "the system message beside tools",
    "zqoffer": "the tools on offer (`tools`)",
    "zqabout": "the tools on offer (`tools`)",
    "zqfield": "the tools on offer (`tools`)",
    "zqcalled": "calls (`tool_calls`)",
    "zqkey": "calls (`tool_calls`)",
    "zqvalue": "calls (`tool_calls`)",
    "zqagain": "several calls in one turn",
    "zqspoken": "text beside calls",
    "zqresult": "results of tools (role tool)",
    "zqlast": "what follows a result",
}
"""Words of the example -> what is lost with them."""


def _example(kind: _Kind) -> Iterator[Message]:
    tools = [
        {
            "type": "function",
            "function": {
                "name": "zqoffer",
                "description": "zqabout",
                "parameters": {
                    "type": "object",
                    "properties": {"zqfield": {"type": "string", "description": "A text."}},
                    "required": ["zqfield"],
                },
            },
        }
    ]
    offer = ToolUse(offered=json.dumps(tools)) if kind.offered else None
    if kind.system:
        yield Message("system", "zqsystem", tools=offer)
    yield Message("user", "zqasked", tools=None if kind.system else offer)
    ids = (f"call{number:05d}" if kind.short_ids else f"call_{number:08d}_zq" for number in count())
    texts = [text for text, wanted in (("", kind.silent_calls), ("zqspoken", kind.spoken_calls)) if wanted]
    for text in texts or ["zqspoken"]:
        names = () if not texts else ("zqcalled", "zqagain") if kind.parallel else ("zqcalled",)
        calls = tuple(ToolCall(name, '{"zqkey": "zqvalue"}', next(ids)) for name in names)
        yield Message("assistant", text, tools=ToolUse(calls) if calls else None)
        if kind.results:
            # Of calls that stand in a text nothing but the result is known.
            uses = [ToolUse(call_id=call.id, name=call.name) for call in calls] or [ToolUse()]
            yield from (Message("tool", "zqresult", tools=use) for use in uses)
    if kind.results:
        yield Message("assistant", "zqlast")


def _kind(messages: Sequence[Message]) -> _Kind:
    calling = [message for message in messages if message.tools is not None and message.tools.calls]
    ids = [call.id for message in calling for call in message.tools.calls]  # type: ignore[union-attr]
    return _Kind(
        system=messages[0].role == "system",
        offered=_offered(messages) is not None,
        silent_calls=any(not message.content.strip() for message in calling),
        spoken_calls=any(message.content.strip() for message in calling),
        parallel=any(len(message.tools.calls) > 1 for message in calling),  # type: ignore[union-attr]
        results=any(message.role == "tool" for message in messages),
        short_ids=all(map(_SHORT_ID.match, ids)),
    )


def _offered(messages: Sequence[Message]) -> list[Any] | None:
    first = messages[0].tools
    return None if first is None or first.offered is None else json.loads(first.offered)


def _values(messages: Sequence[Message], writing: Writing) -> list[dict[str, Any]]:
    short: dict[str, str] = {}

    def named(call_id: str) -> str:
        return short.setdefault(call_id, f"call{len(short):05d}") if writing.short_ids else call_id

    def call_values(call: ToolCall) -> dict[str, Any]:
        arguments = call.arguments if writing.as_text else json.loads(call.arguments)
        function = {"name": call.name, "arguments": arguments}
        return {"id": named(call.id), "type": "function", "function": function}

    turns = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        use = message.tools or ToolUse()
        if use.calls:
            turn["content"] = message.content if message.content.strip() else writing.empty
            turn["tool_calls"] = [call_values(call) for call in use.calls]
        if use.call_id is not None:
            turn["tool_call_id"] = named(use.call_id)
        if use.name is not None:
            turn["name"] = use.name
        turns.append(turn)
    return turns
