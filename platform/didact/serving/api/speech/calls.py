"""Function calls in the text of an answer, read while it is written.

'{"name": "add", "arguments": {"a": 1}}' in pieces -> CallBegun("add"), CallArguments('{"a"'), CallArguments(': 1}')
"""

import json
import re
from dataclasses import dataclass, field

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
_BETWEEN = " \t\r\n[],;"
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A function is called; its arguments follow."""

    index: int
    """Counted over the answer."""
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next piece of the JSON text of a call's arguments."""

    index: int
    text: str


class NotACall(ValueError):
    """What was read is no call: `parts` could be told before that, `text` is what is left."""

    def __init__(self, text: str, parts: "tuple[CallBegun | CallArguments, ...]" = ()) -> None:
        super().__init__(text)
        self.text, self.parts = text, parts


def is_object(text: str) -> bool:
    """Whether a text is the JSON of an object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


@dataclass(slots=True)
class _Scan:
    """Where in a JSON object the text is."""

    depth: int = 0
    in_string: bool = False
    escaped: bool = False

    def end_in(self, text: str, start: int) -> int | None:
        """The place behind the bracket that closes everything; None where it has not come."""
        for place in range(start, len(text)):
            letter = text[place]
            if self.in_string:
                if self.escaped:
                    self.escaped = False
                elif letter == "\\":
                    self.escaped = True
                elif letter == '"':
                    self.in_string = False
            elif letter == '"':
                self.in_string = True
            elif letter in "{[":
                self.depth += 1
            elif letter in "}]":
                self.depth -= 1
                if self.depth == 0:
                    return place + 1
        return None


@dataclass(slots=True)
class CallReader:
    """Reads calls that are written as JSON objects, one after the other or in a list.

    Args:
        next_index: number of the first call.
        allowed: names that may be called; None for any.
    """

    next_index: int = 0
    allowed: frozenset[str] | None = None
    _text: str = ""
    """Of the object that is being read, as far as it is not told."""
    _arguments: _Scan | None = None
    """Within arguments that are told as they come."""
    _whole: _Scan = field(default_factory=_Scan)
    _scanned: int = 0

    @property
    def is_between(self) -> bool:
        """Whether no object is open."""
        return not self._text

    @property
    def in_string(self) -> bool:
        """Whether what was read ends within a string."""
        return (self._arguments or self._whole).in_string

    @property
    def unread(self) -> str:
        """Of an object that is open, what no part has told."""
        return "" if self._arguments is not None else self._text

    def push(self, text: str) -> list[CallBegun | CallArguments]:
        """Go on.

        Raises:
            NotACall: it cannot be read as calls.
        """
        parts: list[CallBegun | CallArguments] = []
        self._text += text
        while self._text:
            if self._arguments is None and self._scanned == 0:
                self._text = self._text.lstrip(_BETWEEN)
                if not self._text:
                    break
                if self._text[0] != "{":
                    raise NotACall(self._text, tuple(parts))
            try:
                found = self._step()
            except NotACall as error:
                raise NotACall(error.text, tuple(parts)) from None
            if found is None:
                break
            parts += found
        return parts

    def _step(self) -> list[CallBegun | CallArguments] | None:
        """What can be told now; None where more text must come first."""
        if self._arguments is not None:
            return self._go_on(self._arguments)
        head = _HEAD.match(self._text)
        if head is not None:
            name = self._named(head[1])
            self._text, self._arguments, self._scanned = self._text[head.end() :], _Scan(), 0
            return [CallBegun(self.next_index, name)]
        closed = self._whole.end_in(self._text, self._scanned)
        if closed is None:
            self._scanned = len(self._text)
            return None
        return self._of_whole(closed)

    def _go_on(self, scan: _Scan) -> list[CallBegun | CallArguments] | None:
        """Arguments as they come, and the bracket behind them."""
        if scan.depth < 0:  # told to their end; the object's own bracket is left
            _, found, after = self._text.partition("}")
            self._text = after
            if not found:
                return None
            self._arguments, self._whole = None, _Scan()
            self.next_index += 1
            return []
        end = scan.end_in(self._text, 0)
        told = self._text if end is None else self._text[:end]
        self._text = "" if end is None else self._text[end:]
        if end is not None:
            scan.depth = -1
        return [CallArguments(self.next_index, told)]

    def _of_whole(self, end: int) -> list[CallBegun | CallArguments]:
        """A call that is not written name first, once all of it is there."""
        try:
            values = json.loads(self._text[:end])
            name, given = values["name"], next(values[key] for key in _ARGUMENTS if key in values)
            name = self._named(json.dumps(name))
            arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
            if not is_object(arguments):
                raise NotACall(self._text)
        except (ValueError, KeyError, TypeError, StopIteration, RecursionError):
            raise NotACall(self._text) from None
        self._text, self._whole, self._scanned = self._text[end:], _Scan(), 0
        self.next_index += 1
        return [CallBegun(self.next_index - 1, name), CallArguments(self.next_index - 1, arguments)]

    def _named(self, quoted: str) -> str:
        try:
            name = json.loads(quoted)
        except ValueError:
            raise NotACall(self._text) from None
        if not isinstance(name, str) or (self.allowed is not None and name not in self.allowed):
            raise NotACall(self._text)
        return name
