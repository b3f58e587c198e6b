"""What an answer says: thoughts, text and function calls, told apart while it is written.

pieces of text -> AnswerReader -> Thought, Text, CallBegun, CallArguments
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from didact.serving.api.speech.calls import CallArguments, CallBegun, CallReader, NotACall, is_object
from didact.serving.replica.backend import Speech

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_MARKS = {"mistral": "[TOOL_CALLS]", "llama3": "<|python_tag|>"}
"""Before calls, where the tokenizer shows it."""

_NAMED = re.compile(r"([\w.-]{1,64})\s*(?:\[ARGS\])?\s*(?=\{)")
_NAME_SO_FAR = re.compile(r"[\w.-]{0,64}\s*(\[[A-Z]*\]?)?\s*\Z")


@dataclass(frozen=True, slots=True)
class Text:
    """What is said."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """What is thought before it is said."""

    text: str


Part = Text | Thought | CallBegun | CallArguments


class AnswerReader:
    """Reads one answer.

    Args:
        speech: how its template writes thoughts and calls.
        tools: names of the functions on offer; without any, calls are text.
        one_call: what is called behind the first function is left out.
    """

    def __init__(self, speech: Speech, tools: Collection[str], *, one_call: bool = False) -> None:
        self._thoughts = speech.thoughts
        self._mark_of_thoughts, self._end_of_thoughts = speech.thoughts or ("", "")
        self._format = speech.calls if tools else None
        self._names, self._one_call = frozenset(tools), one_call
        self._held = ""
        self._state = "start" if self._thoughts or self._format else "text"
        self._calls = CallReader()
        self.has_called = False
        self._begun = speech.begun
        self._trims = False
        """The next line breaks belong to a mark before them."""
        self._unmarked = ""
        """What a call without a mark would be, were it text."""

    def push(self, text: str) -> list[Part]:
        """The next piece of the answer."""
        if self._begun:
            text, self._begun = self._begun + text, ""
        self._held += text
        return self._read(last=False)

    def finish(self) -> list[Part]:
        """All that is held back, once nothing more comes."""
        return [*self.push(""), *self._read(last=True)]

    def read_whole(self, text: str) -> list[Part]:
        """All of an answer that came at once. A call whose arguments are no JSON object is text like any other, unless
        the request demanded it, so that the prompt has begun it."""
        begun = self._begun
        parts = [*self.push(text), *self.finish()]
        arguments: dict[int, str] = {}
        for part in parts:
            if isinstance(part, CallArguments):
                arguments[part.index] = arguments.get(part.index, "") + part.text
        demanded = begun and not (self._end_of_thoughts and begun.startswith(self._mark_of_thoughts))
        if demanded or all(map(is_object, arguments.values())):
            return parts
        self.has_called = False
        thoughts: list[Part] = [part for part in parts if isinstance(part, Thought)]
        said = (begun + text).rpartition(self._end_of_thoughts)[2] if thoughts else begun + text
        return [*thoughts, Text(said.lstrip("\n"))]

    def _read(self, last: bool) -> list[Part]:
        parts: list[Part] = []
        steps = {
            "start": self._start,
            "thought": self._thought,
            "text": self._text,
            "call": self._call,
            "bare": self._bare,
        }
        while self._held or last:
            if self._trims:
                self._held = self._held.lstrip("\n")
                self._trims = not self._held
            state, held = self._state, self._held
            parts += steps[state](last)
            if (self._state, self._held) == (state, held):
                break
        if self._one_call:
            parts = [part for part in parts if not isinstance(part, CallBegun | CallArguments) or part.index == 0]
        self.has_called = self.has_called or any(isinstance(part, CallBegun) for part in parts)
        return parts

    def _start(self, last: bool) -> list[Part]:
        """Before anything is said: whether it begins with a thought or with a call that has no mark of its own."""
        text = self._held.lstrip()
        if self._thoughts and not last and self._thoughts[0].startswith(text) and text != self._thoughts[0]:
            return []
        if self._thoughts and text.startswith(self._thoughts[0]):
            self._held, self._state, self._trims = text[len(self._thoughts[0]) :], "thought", True
            return []
        mark = _MARKS.get(self._format or "")
        if mark is None:
            self._state = "text"
            return []
        unmarked = text.removeprefix(mark).lstrip()
        if not last and (mark.startswith(text) or (self._format == "mistral" and self._may_be_name(unmarked))):
            return []
        body = text.removeprefix(mark).lstrip() if text.startswith(mark) else text
        named = _NAMED.match(body) if self._format == "mistral" else None
        if named and named[1] in self._names:
            body = f'{{"name": "{named[1]}", "arguments": {body[named.end() :]}'
        if not body and not last:
            return []
        if body.startswith(("{", "[")):
            self._unmarked, self._held, self._state = self._held, "", "bare"
            self._calls = CallReader(allowed=self._names)
            return self._unmarked_calls(body, last)
        self._state = "text"
        return []

    def _may_be_name(self, text: str) -> bool:
        return bool(_NAME_SO_FAR.match(text)) and any(
            name.startswith(text.partition("[")[0].strip()) for name in self._names
        )

    def _thought(self, last: bool) -> list[Part]:
        assert self._thoughts is not None
        found, told = self._up_to(self._thoughts[1], last)
        if found:
            self._thoughts, self._state = None, "start" if self._format in _MARKS else "text"
            self._trims = True
        return [Thought(told)] if told else []

    def _text(self, last: bool) -> list[Part]:
        if self._format != "hermes":
            told, self._held = self._held, ""
            return [Text(told)] if told else []
        found, told = self._up_to(_OPEN, last)
        if found:
            self._state = "call"
            self._calls = CallReader(self._calls.next_index)
        if not told.strip() and (found or self.has_called):  # blanks around calls say nothing
            return []
        return [Text(told)] if told else []

    def _call(self, last: bool) -> list[Part]:
        found, body = self._up_to(_CLOSE, last)
        try:
            parts = self._calls.push(body)
            if found and self._calls.in_string:  # a string may hold the mark
                return [*parts, *self._calls.push(_CLOSE)]
            if found or last:
                self._state = "text"
                if self._calls.unread:
                    raise NotACall(self._calls.unread, tuple(parts))
        except NotACall as error:
            self._state = "text"
            rest = f"{error.text}{_CLOSE}" if found else error.text
            return [*error.parts, Text(f"{_OPEN}{rest}")]
        return [*parts]

    def _bare(self, last: bool) -> list[Part]:
        body, self._held = self._held, ""
        self._unmarked += body
        return self._unmarked_calls(body, last)

    def _unmarked_calls(self, body: str, last: bool) -> list[Part]:
        try:
            parts = self._calls.push(body)
            if last and self._calls.unread:
                raise NotACall(self._calls.unread, tuple(parts))
        except NotACall as error:
            self._state, self._format = "text", None
            called = self.has_called or error.parts
            return [*error.parts, Text(error.text if called else self._unmarked)]
        return [*parts]

    def _up_to(self, mark: str, last: bool) -> tuple[bool, str]:
        """Take what stands before a mark, which may still be unfinished at the end of what is held."""
        before, found, after = self._held.partition(mark)
        if found:
            self._held = after
            return True, before
        keep = (
            0
            if last
            else next(
                (length for length in range(min(len(mark) - 1, len(before)), 0, -1) if before.endswith(mark[:length])),
                0,
            )
        )
        self._held = before[len(before) - keep :]
        return False, before[: len(before) - keep]
