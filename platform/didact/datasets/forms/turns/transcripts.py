"""One text with marks for who speaks -> turns."""

import re

from didact.datasets.conversation import Message
from didact.datasets.rows.raw_row import BadRow

_ENDS = re.compile(r"<(?:eoh|eom|eoa|eot|eoc|eor)>|<\|endoftext\|>|</s>")
# Tried in this order. A mark of plain words counts at the beginning of a line only.
_STYLES = (
    re.compile(r"(?P<user>\[\|Human\|\])|(?P<assistant>\[\|AI\|\])"),
    re.compile(r"(?P<user><\|(?:Human|User)\|>:?)|(?P<assistant><\|(?:MOSS|Assistant|AI)\|>:?)"),
    re.compile(r"(?P<user>\[Human\]:)|(?P<assistant>\[MOSS\]:)"),
    re.compile(r"(?P<user><human>:)|(?P<assistant><bot>:)", re.IGNORECASE),
    # Written by hand with blank lines between turns: a single line break before the word belongs to a text.
    re.compile(r"(?:(?<=\n\n)|\A)(?:(?P<user>Human:)|(?P<assistant>Assistant:))(?=\s|\Z)"),
    re.compile(r"^[ \t]*(?:(?P<user>Human[:\uff1a])|(?P<assistant>(?:Assistant|AI)[:\uff1a]))", re.MULTILINE),
    re.compile(r"^[ \t]*(?:(?P<user>User:)|(?P<assistant>(?:Assistant|Joi|Bot):))", re.MULTILINE),
)
_TOLD_FIRST = re.compile(r"\AThe conversation between human and AI assistant\.\s*\Z", re.IGNORECASE)


def split_transcript(text: str) -> list[Message]:
    """Turns of a transcript, blanks around each removed; a blank last turn of the user is left out.

    What stands before the first mark is the system message.

    Raises:
        BadRow: the text holds no marks.
    """
    for style in _STYLES:
        marks = list(style.finditer(text))
        if any(mark["user"] for mark in marks) and any(mark["assistant"] for mark in marks):
            break
    else:
        raise BadRow("wrong_turns", "the text has no marks such as Human: and Assistant: for who speaks")
    before = clean(text[: marks[0].start()])
    messages = [Message("system", before)] if before and not _TOLD_FIRST.match(before) else []
    stops = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, stop in zip(marks, stops, strict=True):
        messages.append(Message("user" if mark["user"] else "assistant", clean(text[mark.end() : stop])))
    if messages[-1].role == "user" and not messages[-1].content:
        messages.pop()
    return messages


def clean(text: str) -> str:
    """A turn without its end marks and the blanks around it."""
    return _ENDS.sub("", text).strip()


def is_history(text: str) -> bool:
    """Whether an instruction is a transcript that waits for the assistant's next turn."""
    return bool(re.match(r"\s*Human[:\uff1a]", text) and re.search(r"\n\s*Assistant[:\uff1a]\s*\Z", text))
