"""From an endpoint's bytes to an answer. Nothing is guessed: what is no answer is said to be none."""

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from didact.evaluation.asks import Likely, Prompt, Text, TokenIds
from didact.evaluation.endpoint.limits import Tokens, num_tokens

_SHOWN = 160
_MOST, _ROUNDING = 2**53, 1e-6


class Unreadable(Exception):
    """Status 200 with what is no answer of the API, such as a proxy's page: another try may help."""


class NoAnswer(Exception):
    """An answer of the API that holds none: no choice, no text, a refusal. Asking again would cost and not help."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A body that was read."""

    values: dict[str, Any]
    used: Tokens | None
    """As the endpoint says; None where it does not."""


def read_reply(content: bytes) -> Reply:
    """The JSON object of a body.

    Raises:
        Unreadable: there is none, or it reports an error although its status was 200.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise Unreadable(f"status 200 with {_shown(content)}; expected JSON") from None
    if not isinstance(values, dict):
        raise Unreadable(f"status 200 with {_shown(content)}; expected a JSON object")
    if values.get("error"):
        raise Unreadable(f"status 200 with an error: {error_message(content)}")
    return Reply(values, _used(values.get("usage")))


def _used(usage: Any) -> Tokens | None:
    prompt, answer = (usage.get("prompt_tokens"), usage.get("completion_tokens")) if isinstance(usage, dict) else (0, 0)
    return Tokens(prompt, answer) if usage and _is_count(prompt) and _is_count(answer) else None


def read_text(reply: Reply) -> Text:
    """The answer of a chat or a plain completion.

    Raises:
        NoAnswer: see the class.
        Unreadable: the object has another form.
    """
    choice = _choice(reply)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    refusal = message.get("refusal") if isinstance(message, dict) else None
    finish = choice.get("finish_reason")
    if isinstance(refusal, str) and refusal:
        raise NoAnswer(f"it refused: {_whole(refusal)[:_SHOWN]!r}")
    if finish == "content_filter":
        raise NoAnswer("its filter of contents took the answer away (finish_reason content_filter)")
    if text is None or text == "":
        thought = isinstance(message, dict) and (message.get("reasoning_content") or message.get("reasoning"))
        why = ", all its tokens went into thinking: allow more of them" if thought and finish == "length" else ""
        raise NoAnswer(f"an empty answer (finish_reason {finish}{why})")
    if not isinstance(text, str):
        raise Unreadable(f"its text is {str(text)[:_SHOWN]!r}; expected a string")
    how: Literal["stop", "length"] = "length" if finish == "length" else "stop"
    return Text(_whole(text), reply.used.answer if reply.used else num_tokens(text), how)


def read_likelihood(reply: Reply, prompt: Prompt, continuation: str | TokenIds) -> Likely:
    """How likely the continuation is, from the echoed prompt's log probabilities.

    Raises:
        NoAnswer: the endpoint did not echo, or a token stands across the end of the prompt.
        Unreadable: the object has another form.
    """
    given = _choice(reply).get("logprobs")
    if not isinstance(given, dict) or not isinstance(given.get("token_logprobs"), list):
        raise NoAnswer("it gives no log probabilities of the prompt (echo and logprobs were asked for)")
    values, best = given["token_logprobs"], given.get("top_logprobs")
    first, last = _span(given, prompt, continuation)
    found = values[first:last]
    if len(values) < last or not found or not all(map(_is_likelihood, found)):
        raise NoAnswer(f"it gave log probabilities of {len(values)} tokens; expected those of tokens {first} to {last}")
    tops = best[first:last] if isinstance(best, list) else []
    greedy = len(tops) == len(found) and all(
        isinstance(top, dict) and top and all(map(_is_likelihood, top.values())) and value >= max(top.values())
        for value, top in zip(found, tops, strict=True)
    )
    return Likely(float(sum(found)), len(found), greedy)


def _span(given: dict[str, Any], prompt: Prompt, continuation: str | TokenIds) -> tuple[int, int]:
    if isinstance(prompt, TokenIds) and isinstance(continuation, TokenIds):
        return len(prompt.ids), len(prompt.ids) + len(continuation.ids)
    offsets = given.get("text_offset")
    if not isinstance(offsets, list) or not all(_is_count(each) for each in offsets):
        raise NoAnswer("it does not say where tokens stand in the text (logprobs.text_offset)")
    start, end = len(str(prompt)), len(str(prompt)) + len(str(continuation))
    inside = [number for number, offset in enumerate(offsets) if start <= offset < end]
    if not inside or offsets[inside[0]] != start:
        raise NoAnswer(
            "a token stands across the end of the prompt; ask with token ids, or end the prompt before a blank"
        )
    return inside[0], inside[-1] + 1


def _choice(reply: Reply) -> dict[str, Any]:
    choices = reply.values.get("choices")
    if choices == []:
        raise NoAnswer("no answer at all (choices is empty)")
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise Unreadable(f"choices is {str(choices)[:_SHOWN]!r}; expected a list of objects")
    return choices[0]


def error_message(content: bytes) -> str:
    """What a body says is wrong, in one line."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return _shown(content)
    error = values.get("error", values) if isinstance(values, dict) else values
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(_whole(str(message if message is not None else error)).split())[:_SHOWN] or "no word"


def error_code(content: bytes) -> str:
    """The error's code in a body, such as `insufficient_quota`; empty where there is none."""
    try:
        code = json.loads(content)["error"]["code"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return str(code)


def _shown(content: bytes) -> str:
    line = " ".join(content[: 4 * _SHOWN].decode("utf-8", "replace").split())
    return repr(line[:_SHOWN]) if line else "an empty body"


def _is_likelihood(value: Any) -> bool:
    """Of a probability, a rounding error above 1 allowed."""
    return isinstance(value, float | int) and not isinstance(value, bool) and -_MOST <= value <= _ROUNDING


def _whole(text: str) -> str:
    """Without halves of characters, which JSON can escape and no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
