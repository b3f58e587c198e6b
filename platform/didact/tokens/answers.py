"""Where the answers of a conversation stand, each in the form in which the model will write it.

An answer is written behind the prompt that asks for it, when it is the last turn. Templates may show it otherwise once
it is history: without its thoughts, or with another end mark. So each answer is looked up in the text that ends with
it, and answers share a text only where the longer one begins with all that was written up to the earlier one's end.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from didact.datasets.conversation import Message
from didact.errors import NoToolSyntax, TemplateError
from didact.tokens.render import Renderer

_THOUGHTS = (
    ("<think>", "</think>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
)
"""Marks around the thoughts of published models."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of one sample."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters to learn, as [start, end), in order and apart."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What can be learned of a conversation."""

    texts: tuple[Rendered, ...]
    left_out: tuple[str, ...] = ()
    """Of each answer that cannot be learned, why."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer behind its prompt, as the last turn of a text."""

    text: str
    start: int
    end: int


def find_answers(messages: Sequence[Message], wanted: Sequence[int], renderer: Renderer, stops: list[str]) -> Answers:
    """The texts in which some answers of a conversation are learned.

    Args:
        messages: the conversation.
        wanted: indices of the answers, ascending.
        renderer: of the chat template.
        stops: texts of the tokens that end an answer.

    Raises:
        TemplateError: none of them can be learned; says why the last one cannot.
        NoToolSyntax: the template leaves out calls, results or tools.
    """
    found, left_out = [], list[TemplateError]()
    for index in wanted:
        try:
            found.append(_find(messages[: index + 1], renderer, stops))
        except NoToolSyntax:
            raise
        except TemplateError as error:
            left_out.append(error)
    if left_out and not found:
        raise left_out[-1]
    shared: list[tuple[str, list[tuple[int, int]]]] = []
    for answer in reversed(found):
        written = answer.text[: answer.end]
        spans = next((spans for text, spans in shared if text.startswith(written)), None)
        if spans is None:
            spans = []
            shared.append((answer.text, spans))
        spans.append((answer.start, answer.end))
    texts = tuple(Rendered(text, tuple(reversed(spans))) for text, spans in reversed(shared))
    return Answers(texts, tuple(map(str, left_out)))


def find_all_but(messages: Sequence[Message], hidden: Sequence[int], renderer: Renderer, stops: list[str]) -> Rendered:
    """The text of a conversation with all of it to learn but some answers.

    Args:
        messages: the conversation.
        hidden: indices of these answers, ascending.
        renderer: of the chat template.
        stops: texts of the tokens that end an answer.

    Raises:
        TemplateError: the template shows such an answer otherwise once it is history, so it cannot be left out.
    """
    text, spans, start = renderer.render(messages, add_generation_prompt=False), [], 0
    for index in hidden:
        answer = _find(messages[: index + 1], renderer, stops)
        if not text.startswith(answer.text[: answer.end]):
            raise TemplateError(
                "the chat template rewrites earlier answers, so that one cannot be left out of the loss"
            )
        spans.append((start, answer.start))
        start = answer.end
    return Rendered(text, (*spans, *([(start, len(text))] if start < len(text) else [])))


def _find(messages: Sequence[Message], renderer: Renderer, stops: list[str]) -> _Answer:
    prompt = renderer.render(messages[:-1], add_generation_prompt=True)
    text = renderer.render(messages, add_generation_prompt=False)
    content = messages[-1].content
    lead, marks = _lead(prompt)
    if lead and text.startswith(prompt[: -len(lead)]):
        text = prompt + _behind_lead(lead, text[len(prompt) - len(lead) :], content, marks)
    elif not text.startswith(prompt):
        text = _behind_prompt(prompt, text, messages)
    start = len(prompt)
    end = _end(text, start, content, stops)
    if messages[-1].tools is not None:  # calls stand behind the text and end the turn
        ends = [position + len(stop) for stop in stops if (position := text.rfind(stop, start)) >= 0]
        end = max(ends, default=len(text))
    return _Answer(text, start, end)


def _end(text: str, start: int, content: str, stops: list[str]) -> int:
    """End of the answer in `text[start:]`, with the mark that ends the turn but nothing after it.

    Raises:
        TemplateError: not all of the answer is there.
    """
    after = start
    # A template may take whole texts as they are or set thought and answer apart, but must leave nothing out.
    whole = content.strip()
    pieces = [whole] if text.find(whole, start) >= 0 else [piece.strip() for piece in _thought(content)]
    for piece in pieces:
        position = text.find(piece, after)
        if position < 0:
            raise TemplateError(
                f"the chat template leaves {_short(piece)} of the answer out, and goes on after the prompt with "
                f"{_short(text[start:])}"
            )
        after = position + len(piece)
    marks = [(position, stop) for stop in stops if (position := text.find(stop, after)) >= 0]
    if marks:
        position, stop = min(marks)
        return position + len(stop)
    return after if whole else len(text)


def _thought(content: str) -> tuple[str, str]:
    """Thought and answer of a text that begins with a thought, marks left out; an empty thought where there is none."""
    for opening, closing in _THOUGHTS:
        before, closed, after = content.partition(closing)
        if closed and (opening not in before or before.lstrip().startswith(opening)):
            return before.lstrip().removeprefix(opening), after
    return "", content


def _lead(prompt: str) -> tuple[str, tuple[str, str]]:
    """The marks with which a prompt opens a thought or closes one, up to its end, and which they are; "" without."""
    for marks in _THOUGHTS:
        opening, closing = map(re.escape, marks)
        lead = re.search(rf"(?:{opening}\s*)?(?:{closing}\s*)?\Z", prompt)
        if lead and lead.group():
            return lead.group(), marks
    return "", ("", "")


def _behind_lead(lead: str, body: str, content: str, marks: tuple[str, str]) -> str:
    """What the model writes behind `lead`, the end of its prompt, where the template writes `body` for both.

    Raises:
        TemplateError: the prompt asks for an answer without the thought that this one has.
    """
    opening, closing = marks
    given, answer = _thought(content)
    written, is_lead = body.removeprefix(lead), body.startswith(lead)
    if closing in lead:
        before, closed, after = body.partition(closing)
        if not body.lstrip().startswith(marks):
            closed = ""  # a mark further on is none of this answer's
        shown = given if given.strip() or is_lead or not closed else before.removeprefix(opening)
        if shown.strip():
            raise TemplateError(
                f"the chat template's prompt ends with {lead!r}, which asks for an answer without a thought, but this "
                f"one has the thought {_short(shown.strip())}"
            )
        return written if is_lead or not closed else after.lstrip()
    if written.lstrip().startswith(opening):  # opened once more by the content, or by the template in another way
        written, is_lead = written.lstrip().removeprefix(opening), False
    thought, closed, rest = written.partition(closing)
    if not closed:
        thought, rest = "", written
    if given.strip() and not thought.strip():
        # The template drops the thought, or puts it behind an empty one.
        rest = rest.replace(content.strip(), answer.strip(), 1)
        space = answer[: len(answer) - len(answer.lstrip())]
        thought, rest = given, rest if closed else space + rest.lstrip()
    elif not closed:
        # The model has to close the thought that its prompt opens before it can answer.
        line = "\n" if lead.endswith("\n") else ""
        return f"{line}{closing}{2 * line}{rest}"
    elif is_lead:
        return written
    return (thought.lstrip() if lead[-1].isspace() else thought) + closing + rest


def _behind_prompt(prompt: str, text: str, messages: Sequence[Message]) -> str:
    """The answer behind its prompt, where the template writes what comes before otherwise once it is answered.

    It is found behind the header with which the prompt ends.

    Raises:
        TemplateError: the text does not hold this header before the answer.
    """
    asked, answer = messages[-2].content.strip(), _thought(messages[-1].content)[1].strip()
    header = prompt.rpartition(asked)[2] if asked else ""
    # The whole prompt is no header: then the question is not in it as it was asked.
    position = text.rfind(header, 0, text.rfind(answer)) if header.strip() and header != prompt else -1
    if position >= 0:
        return prompt + text[position + len(header) :]
    common = _common_length(text, prompt)
    raise TemplateError(
        "the chat template's prompt for an answer must be the beginning of the text with the answer, but after "
        f"{text[max(0, common - 40) : common]!r} the prompt goes on with {prompt[common : common + 40]!r} and the "
        f"text with {text[common : common + 40]!r}; set tokens.template to alpaca"
    )


def _common_length(text: str, other: str) -> int:
    pairs = enumerate(zip(text, other, strict=False))
    return next((index for index, (mine, others) in pairs if mine != others), min(len(text), len(other)))


def _short(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else f"{text[:limit]}...")
