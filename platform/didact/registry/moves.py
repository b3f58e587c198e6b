"""Where an alias has pointed: each try to move it, also one that was refused, in a tag of the registered model."""

import getpass
import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

TAG = "{alias}.moves"
_KEPT, _LONGEST = 20, 4500  # MLflow takes 5000 characters a tag
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Move:
    """One try to point an alias elsewhere."""

    at: str
    """When, in UTC (ISO 8601)."""
    by: str
    """`user@host`."""
    before: int | None
    """The version it pointed to; None for nothing."""
    after: int
    """The version it was to point to."""
    forced: str | None = None
    """Why it was moved although the gate did not let it."""
    refused: str | None = None
    """Why it was not moved."""

    @classmethod
    def now(cls, before: int | None, after: int, *, forced: str | None = None, refused: str | None = None) -> "Move":
        """A move of this moment by this process."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(at, _who(), before, after, _short(forced), _short(refused))


def moves_of(tags: Mapping[str, str], alias: str) -> tuple[Move, ...]:
    """The moves that a registered model's tags hold of an alias, oldest first; what cannot be read is left out."""
    try:
        return tuple(Move(**each) for each in json.loads(tags.get(TAG.format(alias=alias), "[]")))
    except (TypeError, json.JSONDecodeError):
        return ()


def with_move(tags: Mapping[str, str], alias: str, move: Move) -> str:
    """The value of the tag with one more move; the oldest ones give way."""
    kept = [asdict(each) for each in (*moves_of(tags, alias), move)][-_KEPT:]
    while len(text := json.dumps(kept)) > _LONGEST and len(kept) > 1:
        kept = kept[1:]
    return text


def _short(text: str | None) -> str | None:
    return None if text is None else text[:_LONGEST_REASON]


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name, as in some containers
        return socket.gethostname()
