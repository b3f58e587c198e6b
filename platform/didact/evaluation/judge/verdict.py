"""The verdict of a judge, read strictly from the end of its own words.

What it quotes of an answer does not count, nor what stands anywhere but in its last line (or in one JSON object, for
judges that write JSON). A reply that was cut has no last line: `Score: 1` may have been going to be `Score: 10`.
"""

import json
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from didact.evaluation.judge.fence import without_quotes
from didact.files import members_once

_NUMBER = r"([-+]?\d+(?:\.\d+)?)"
_SCORE = re.compile(rf"(?:score|得分|评分|分数)\s*:\s*{_NUMBER}(?:\s*/\s*{_NUMBER})?\s*[.。]?", re.IGNORECASE)
_CHOICE = re.compile(r"(?:verdict|结论)\s*:\s*(?:answer\s*|回答\s*)?(a|b|tie|平局?)\s*[.。]?", re.IGNORECASE)
_JSON_BLOCK = re.compile(r"```(?:json)?\s*\n(\{.*?\})\s*\n```\s*\Z", re.DOTALL | re.IGNORECASE)
_EMPHASIS = re.compile(r"[*`]+|__")
_SIDES: dict[str, float] = {"a": 1.0, "b": -1.0, "tie": 0.0, "平": 0.0, "平局": 0.0}
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Scale:
    """Scores from `low` to `high`."""

    low: float
    high: float


FROM_0_TO_1 = Scale(0, 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a judge's reply says."""

    value: float | None
    """A score; of a pair 1 for A, -1 for B, 0 for a tie. None where it cannot be read."""
    why: str = ""
    """Why it cannot."""


def read_verdict(text: str, scale: Scale | None, code: str = "", finish: Literal["stop", "length"] = "stop") -> Reading:
    """Read a reply.

    Args:
        text: the judge's words.
        scale: of scores; None for a pair's verdict.
        code: the mark of the blocks that the judge was shown (`Fence.code`), whose quotes do not count.
        finish: `length` where the reply was cut.
    """
    if finish == "length":
        return Reading(None, "its reply was cut before the verdict; raise judging.max_new_tokens")
    own = without_quotes(unicodedata.normalize("NFKC", text), code)
    if own is None:
        return Reading(None, "its reply ends inside a quoted answer")
    own = own.strip()
    if not own:
        return Reading(None, "its reply is empty")
    last = own.splitlines()[-1].strip().strip("*`_#").strip()
    pattern = _CHOICE if scale is None else _SCORE
    if found := pattern.fullmatch(_EMPHASIS.sub("", last)):
        return _value(found[1], scale, found[2] if scale else None)
    if (values := _json(own, last)) is not None:
        names = ("verdict", "结论") if scale is None else ("score", "得分")
        given = [values[name] for name in names if name in values]
        if len(given) == 1 and isinstance(given[0], str | int | float) and not isinstance(given[0], bool):
            return _value(_plain(given[0]), scale, None)
    verdict = "Verdict: A" if scale is None else f"Score: {scale.high:g}"
    return Reading(None, f"its last line is {last[:_SHOWN]!r}; expected one such as {verdict!r}")


def _plain(given: str | float) -> str:
    """A member as its verdict would be written; no number in exponents."""
    return given.strip() if isinstance(given, str) else format(Decimal(repr(given)), "f")


def _value(text: str, scale: Scale | None, of: str | None) -> Reading:
    if scale is None:
        side = _SIDES.get(text.casefold())
        return Reading(side, "" if side is not None else f"its verdict is {text[:_SHOWN]!r}")
    if not re.fullmatch(_NUMBER, text):
        return Reading(None, f"its score is {text[:_SHOWN]!r}")
    if of is not None and float(of) != scale.high:
        return Reading(None, f"its score is out of {of}, the scale ends at {scale.high:g}")
    value = float(text)
    if not scale.low <= value <= scale.high:
        return Reading(None, f"its score {text} is outside {scale.low:g} to {scale.high:g}")
    return Reading(value)


def _json(own: str, last: str) -> dict[str, Any] | None:
    """The JSON object that is the whole reply, its last block, or its last line where no other line is one."""
    if sum(line.strip().startswith("{") and line.strip().endswith("}") for line in own.splitlines()) > 1:
        return None
    block = _JSON_BLOCK.search(own)
    for candidate in (own, block[1] if block else "", last):
        if candidate.startswith("{"):
            try:
                return _once_each(candidate)
            except (ValueError, RecursionError):
                continue
    return None


def _once_each(text: str) -> dict[str, Any]:
    values = json.loads(text, object_pairs_hook=members_once)
    if not isinstance(values, dict):
        raise ValueError("no object")
    return values
