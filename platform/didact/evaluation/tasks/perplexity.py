"""Perplexity over plain text: documents cut into windows, each with text before it that is only read."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from didact.datasets.conversation import Message
from didact.datasets.rows.fields import text
from didact.datasets.rows.raw_row import BadRow
from didact.errors import DataError
from didact.evaluation.asks import Answer, Ask, Likelihood
from didact.evaluation.questions import Question, Score
from didact.evaluation.tasks.question_files import QuestionRow, read_questions
from didact.evaluation.tasks.text_task import choose
from didact.files import fingerprint
from didact.spec import PerplexityTask

_TEXT_FILES = (".txt", ".md", ".text")
# White space goes with the word behind it, as most tokenizers take it.
_PIECE = re.compile(r"\s*\S+|\s+\Z")


@dataclass(frozen=True)
class TextWindows:
    """A `Task` whose questions are windows: the text that counts, with its context as `data`."""

    name: str
    settings: PerplexityTask
    questions: tuple[Question, ...]
    corrections: tuple[str, ...] = ()
    metric: str = "bits_per_byte"

    @property
    def version(self) -> str:
        """Digest over all windows."""
        return fingerprint([[each.id, each.data, each.text] for each in self.questions])

    def asks(self, question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        """How likely the text is after its context; a document's first window follows what texts begin with."""
        return () if answers else (Likelihood(question.data, (question.text,)),)

    def score(self, question: Question, answers: tuple[Answer, ...]) -> Score:
        """`loss` is nats per token, `bits_per_byte` what its name says; both of this window alone."""
        (likely,) = answers[0].likelihoods
        if not math.isfinite(likely.log_likelihood):
            return Score(problem=f"the log-likelihood is {likely.log_likelihood}")
        bits = -likely.log_likelihood / math.log(2)
        size = len(question.text.encode("utf-8"))
        return Score({"loss": -likely.log_likelihood / likely.num_tokens, self.metric: bits / size})

    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        """Perplexity over all tokens and over all bytes that count, windows of any length weighing what they hold."""
        nats = tokens = 0.0
        size = 0
        for question, score in scores:
            if self.metric not in score.values:
                continue
            own = len(question.text.encode("utf-8"))
            own_nats = score.values[self.metric] * own * math.log(2)
            nats, size = nats + own_nats, size + own
            tokens += own_nats / score.values["loss"] if score.values["loss"] else 0.0
        if not size:
            return {}
        return {"perplexity": math.exp(nats / tokens) if tokens else 1.0, "byte_perplexity": math.exp(nats / size)}


def build_perplexity(spec: PerplexityTask) -> TextWindows:
    """Windows of all documents. Those of one document share its name as `passage`, those of one file are a group.

    Raises:
        DataError: nothing is there, or too many documents that cannot be used; names file and line.
    """
    name = spec.name or spec.task
    is_text = not spec.path.startswith("hf:") and spec.path.removesuffix(".gz").endswith(_TEXT_FILES)

    def make(row: QuestionRow) -> list[Question]:
        document = text(row.record, "text" if is_text else spec.field)
        if not document.strip():
            raise BadRow("empty_prompt", "the document is empty")
        passage = f"{row.stem}:{row.number}"
        return [
            Question(f"{passage}:{number}", (Message("user", counted),), group=row.stem, passage=passage, data=context)
            for number, (context, counted) in enumerate(windows(document, spec.window, spec.stride), start=1)
        ]

    read = read_questions(
        name,
        spec.path,
        make,
        split=spec.split,
        container="text" if is_text else None,
        max_bad_rows_share=spec.max_bad_rows_share,
    )
    found = [window for document in read.found for window in document]
    if not found:
        raise DataError(f"evaluation task {name}: {spec.path} leaves no documents; first: {read.left_out[0]}")
    corrections = tuple(f"left out: {each}" for each in read.left_out)
    return TextWindows(name, spec, tuple(choose(name, found, spec.num_items)), corrections)


def windows(document: str, window: int, stride: int) -> Iterator[tuple[str, str]]:
    """Context and the text after it that counts, for each window; the first has no context and may fill the window.

    Args:
        document: not empty.
        window: most bytes of both.
        stride: most bytes that count.
    """
    pieces = [part for each in _PIECE.findall(document) for part in _small(each, stride)]
    sizes = [len(each.encode("utf-8")) for each in pieces]
    start, limit = 0, window
    while start < len(pieces):
        stop, counted = start, 0
        while stop < len(pieces) and counted + sizes[stop] <= limit:
            counted, stop = counted + sizes[stop], stop + 1
        first, before = start, 0
        while first > 0 and before + sizes[first - 1] <= window - counted:
            first, before = first - 1, before + sizes[first - 1]
        yield "".join(pieces[first:start]), "".join(pieces[start:stop])
        start, limit = stop, stride


def _small(piece: str, stride: int) -> Iterator[str]:
    """A piece as it is, or character by character where the script puts no space between words."""
    if len(piece.encode("utf-8")) <= min(stride, 32):
        yield piece
    else:
        yield from piece
