"""How much a search may spend: `2h`, `5e6 tokens`, `$20`."""

import re
from dataclasses import dataclass
from typing import Literal

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)(?:ec|econds?|in|inutes?|ours?|ays?)?(?![a-z])", re.IGNORECASE)
_TOKENS = re.compile(r"(\d+(?:\.\d*)?(?:e\+?\d+)?)\s*([kmb]?)\s*tokens?", re.IGNORECASE)
_DOLLARS = re.compile(r"(?:\$\s*(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?)\s*(?:\$|usd|dollars?))", re.IGNORECASE)
_MANY = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of one thing."""

    amount: float
    unit: Literal["seconds", "tokens", "dollars"]


def parse_budget(text: str) -> Budget:
    """A budget as it is written.

    Raises:
        ValueError: it is none, or nothing.
    """
    written = text.strip().replace(",", "").replace("_", "")
    found: Budget | None = None
    if match := _TOKENS.fullmatch(written):
        found = Budget(float(match[1]) * _MANY[match[2].lower()], "tokens")
    elif match := _DOLLARS.fullmatch(written):
        found = Budget(float(match[1] or match[2]), "dollars")
    elif written and not _SPAN.sub("", written).strip():
        parts = _SPAN.findall(written)
        found = Budget(sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts), "seconds")
    if found is None:
        raise ValueError(f"found {text!r}; expected a time as 2h or 1h 30m, tokens as '5e6 tokens', or money as $20")
    if found.amount <= 0:
        raise ValueError(f"found {text!r}; expected more than nothing")
    return found
