"""Answers that were given before, so that a killed evaluation goes on and scoring again asks nobody.

    <cache>/answers/<address of the model>/<writer>.jsonl:
        a line each, {"ask": digest, "answer": {...}, "at": 1.7e9, "sum": digest of ask and answer}

Each process writes a file of its own. A line that a kill cut off is passed over, and so is one that is not as it was
written: its question is asked again.
"""

import json
import time
import uuid
from pathlib import Path
from typing import Any, TextIO

from didact.evaluation.asks import Answer, Ask, Identity, ask_digest
from didact.files import fingerprint
from didact.logs import get_logger

_log = get_logger(__name__)


class KeptAnswers:
    """The answers of one model."""

    def __init__(self, folder: Path, not_before: float = 0.0) -> None:
        """Read what is there.

        Args:
            folder: made with the first answer that is kept.
            not_before: answers given before that time (seconds since 1970) are passed over, and asked again.
        """
        self._folder = folder
        self._not_before = not_before
        self._answers: dict[str, Answer] = {}
        self._given: dict[str, float] = {}
        self._stream: TextIO | None = None
        for file in sorted(folder.glob("*.jsonl")):
            self._read(file)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, ask: Ask) -> Answer | None:
        """What the model answered to this very ask."""
        return self._answers.get(ask_digest(ask))

    def given_at(self, ask: Ask) -> float | None:
        """When it answered that, in seconds since 1970."""
        return self._given.get(ask_digest(ask))

    def put(self, ask: Ask, answer: Answer) -> None:
        """Keep an answer. One with a problem is no answer, and is asked again the next time."""
        if answer.problem is not None:
            return
        digest = ask_digest(ask)
        self._answers[digest] = answer
        at = self._given[digest] = time.time()
        if self._stream is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stream = (self._folder / f"{uuid.uuid4().hex}.jsonl").open("a", encoding="utf-8")
        values = answer.to_json()
        self._stream.write(json.dumps({"ask": digest, "answer": values, "at": at, "sum": _sum(digest, values)}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _read(self, file: Path) -> None:
        try:
            written = file.stat().st_mtime  # of lines without a time of their own
            lines = file.read_bytes().split(b"\n")
        except OSError as error:
            _log.warning("%s cannot be read (%s): its answers are asked again", file, error.strerror)
            return
        damaged = [number for number, line in enumerate(lines, start=1) if line and not self._take(line, written)]
        if damaged and lines[-1] and damaged[-1] == len(lines):
            _log.info("%s, line %d: the writer was cut off there", file, damaged.pop())
        if damaged:
            _log.warning(
                "%s: %d of its lines hold no whole answer, the first is line %d; what they held is asked again",
                file,
                len(damaged),
                damaged[0],
            )

    def _take(self, line: bytes, written: float) -> bool:
        """Remember the answer of a line; whether there is one."""
        try:
            values = json.loads(line)
            digest, answer, at = (
                str(values["ask"]),
                Answer.from_json(values["answer"]),
                float(values.get("at", written)),
            )
            # Earlier versions wrote no sum.
            if "sum" in values and values["sum"] != _sum(digest, values["answer"]):
                return False
        except (KeyError, TypeError, ValueError, RecursionError):
            return False
        if at >= max(self._not_before, self._given.get(digest, 0.0)):
            self._answers[digest], self._given[digest] = answer, at
        return True


def _sum(ask: str, answer: dict[str, Any]) -> str:
    return fingerprint([ask, answer])[:16]


def kept_answers(cache: Path, identity: Identity, not_before: float = 0.0) -> KeptAnswers:
    """The answers that a model has given so far on this machine.

    Args:
        cache: `DIDACT_CACHE`.
        identity: of the model.
        not_before: see `KeptAnswers`.
    """
    return KeptAnswers(cache / "answers" / identity.address, not_before)
