"""Answers that were given before, so that a killed evaluation goes on and scoring again asks nobody.

    <cache>/answers/<address of the model>/<writer>.jsonl: a line an answer, {"ask": digest, "answer": {...}}

Each process writes a file of its own. A line that a kill cut off is passed over.
"""

import json
import uuid
from pathlib import Path
from typing import TextIO

from didact.evaluation.asks import Answer, Ask, Identity, ask_digest
from didact.logs import get_logger

_log = get_logger(__name__)


class KeptAnswers:
    """The answers of one model."""

    def __init__(self, folder: Path) -> None:
        """Read what is there.

        Args:
            folder: made with the first answer that is kept.
        """
        self._folder = folder
        self._answers: dict[str, Answer] = {}
        self._stream: TextIO | None = None
        for file in sorted(folder.glob("*.jsonl")):
            self._read(file)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, ask: Ask) -> Answer | None:
        """What the model answered to this very ask."""
        return self._answers.get(ask_digest(ask))

    def put(self, ask: Ask, answer: Answer) -> None:
        """Keep an answer. One with a problem is no answer, and is asked again the next time."""
        if answer.problem is not None:
            return
        digest = ask_digest(ask)
        self._answers[digest] = answer
        if self._stream is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stream = (self._folder / f"{uuid.uuid4().hex}.jsonl").open("a", encoding="utf-8")
        self._stream.write(json.dumps({"ask": digest, "answer": answer.to_json()}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _read(self, file: Path) -> None:
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            try:
                values = json.loads(line)
                self._answers[values["ask"]] = Answer.from_json(values["answer"])
            except (KeyError, TypeError, ValueError):
                _log.info("%s, line %d holds no answer: the writer was cut off there", file, number)


def kept_answers(cache: Path, identity: Identity) -> KeptAnswers:
    """The answers that a model has given so far on this machine.

    Args:
        cache: `DIDACT_CACHE`.
        identity: of the model.
    """
    return KeptAnswers(cache / "answers" / identity.address)
