"""Answers that were given before, so that a killed evaluation goes on and scoring again asks nobody.

    <cache>/answers/<address of the model>/<writer>.jsonl: a line each, {"ask": digest, "answer": {...}, "at": 1.7e9}

Each process writes a file of its own. A line that a kill cut off is passed over.
"""

import json
import time
import uuid
from pathlib import Path
from typing import TextIO

from didact.evaluation.asks import Answer, Ask, Identity, ask_digest
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
        self._stream.write(json.dumps({"ask": digest, "answer": answer.to_json(), "at": at}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _read(self, file: Path) -> None:
        written = file.stat().st_mtime  # of lines without a time of their own
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            try:
                values = json.loads(line)
                digest, answer, at = values["ask"], Answer.from_json(values["answer"]), float(values.get("at", written))
                if at >= max(self._not_before, self._given.get(digest, 0.0)):
                    self._answers[digest], self._given[digest] = answer, at
            except (KeyError, TypeError, ValueError):
                _log.info("%s, line %d holds no answer: the writer was cut off there", file, number)


def kept_answers(cache: Path, identity: Identity, not_before: float = 0.0) -> KeptAnswers:
    """The answers that a model has given so far on this machine.

    Args:
        cache: `DIDACT_CACHE`.
        identity: of the model.
        not_before: see `KeptAnswers`.
    """
    return KeptAnswers(cache / "answers" / identity.address, not_before)
