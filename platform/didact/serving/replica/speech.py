"""How a chat template writes function calls and thoughts, told from its text."""

from typing import TYPE_CHECKING

from didact.errors import NoToolSyntax
from didact.serving.replica.backend import CallFormat, Speech

if TYPE_CHECKING:
    from didact.tokens import TemplateContract

_THOUGHTS = (("<think>", "</think>"), ("<thought>", "</thought>"), ("[THINK]", "[/THINK]"))
_FORCED: dict[CallFormat, str] = {
    "hermes": '<tool_call>\n{"name": "',
    "mistral": '[TOOL_CALLS] [{"name": "',
    "llama3": '{"name": "',
}
_BEFORE_ARGUMENTS: dict[CallFormat, str] = {"hermes": "arguments", "mistral": "arguments", "llama3": "parameters"}


def call_format(template: str) -> CallFormat | None:
    """How answers call functions: Qwen, SmolLM and Hermes alike, Mistral, Llama 3; None for another way or none."""
    if "<tool_call>" in template:
        return None if "<function=" in template else "hermes"
    if "[TOOL_CALLS]" in template:
        return "mistral"
    return "llama3" if '"parameters": ' in template and "ipython" in template else None


def speech_of(contract: "TemplateContract") -> Speech:
    """How answers under a template are to be read."""
    thoughts = next((marks for marks in _THOUGHTS if all(mark in contract.template for mark in marks)), None)
    return Speech(call_format(contract.template), thoughts)


def forced_call(speech: Speech, name: str) -> str:
    """What an answer begins with that must call a function.

    Args:
        speech: how the template writes calls.
        name: the function; empty for any.

    Raises:
        NoToolSyntax: calls of this template cannot be read.
    """
    if speech.calls is None:
        raise NoToolSyntax("the chat template does not write calls in a form that is read here")
    named = f'{name}", "{_BEFORE_ARGUMENTS[speech.calls]}": ' if name else ""
    return _FORCED[speech.calls] + named
