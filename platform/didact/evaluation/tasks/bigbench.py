"""Rows of BIG-bench: StrategyQA, and BIG-bench Hard with its examples of reasoning."""

import re
from collections.abc import Mapping
from pathlib import Path

from didact.datasets.conversation import Message
from didact.datasets.quality.texts import normalise
from didact.datasets.rows.fields import take, text
from didact.datasets.rows.raw_row import BadRow
from didact.errors import DataError
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.numbers import is_number, last_number, numbers_equal
from didact.evaluation.scorers.options import Options
from didact.evaluation.tasks.question_files import QuestionRow

_YES_NO = ("Yes", "No")
_OPTION = re.compile(r"^\(([A-Z])\)\s*(.+)$", re.MULTILINE)
_WORDS = (("True", "False"), _YES_NO, ("valid", "invalid"))
_ANSWER_IS = re.compile(r"\banswer is:?\s*(.+?)\.?\s*(?:\n|$|(?<=\.)\s)", re.IGNORECASE)
_BRACKETS_ALONE = re.compile(r"[\s()\[\]{}<>]+")


def read_strategyqa(row: QuestionRow, corrections: list[str]) -> Question:
    """A question of StrategyQA, from BIG-bench (`input`, `target_scores`) or as published (`question`, `answer`).

    Raises:
        BadRow: no question, or an answer that is neither yes nor no.
    """
    record = row.record
    if "target_scores" in record:
        scores = record["target_scores"]
        right = [label for label in _YES_NO if isinstance(scores, Mapping) and scores.get(label) == 1]
        rationale = re.sub(r"\A(?:Yes|No)\.\s*", "", str(record.get("target", "")))
        asked = text(record, "input")
    else:
        asked, given = text(record, "question"), take(record, "answer")
        word = {True: "yes", False: "no"}[given] if isinstance(given, bool) else str(given)
        right = [label for label in _YES_NO if label.casefold() == word.strip().casefold()]
        facts = record.get("facts", ())
        rationale = " ".join(map(str, facts)) if isinstance(facts, list) else str(facts or "")
    if len(right) != 1:
        given = record.get("target_scores", record.get("answer"))
        raise BadRow("unknown_label", f"the answer is {given!r}, expected yes or no")
    return _question("strategyqa", "", asked, right[0], Options(_YES_NO), rationale)


def read_bbh(row: QuestionRow, corrections: list[str]) -> Question:
    """A question of BIG-bench Hard: with lettered options in its text, one of two words, or an answer of its own.

    Raises:
        BadRow: no question or answer, or an answer that is no option.
    """
    asked, target = text(row.record, "input"), text(row.record, "target").strip()
    if not target:
        raise BadRow("empty_output", "the target is empty")
    listed = dict(_OPTION.findall(asked.rpartition("Options:")[2])) if "Options:" in asked else {}
    words = next((pair for pair in _WORDS if target.casefold() in {word.casefold() for word in pair}), None)
    options: Options | None = None
    if listed:
        options = Options(tuple(listed), tuple(listed.values()))
        target = target.strip("()")
        if target not in listed:
            raise BadRow("unknown_label", f"target {target!r} is none of the options {', '.join(listed)}")
    elif words is not None:
        options = Options(words)
        target = next(word for word in words if word.casefold() == target.casefold())
    return _question(row.stem, row.stem, asked, target, options, "")


def read_reasoning_prompts(folder: Path) -> dict[str, tuple[Question, ...]]:
    """Worked examples of a folder `cot-prompts`: task -> questions with rationale.

    Raises:
        DataError: a file holds none.
    """
    found: dict[str, tuple[Question, ...]] = {}
    for file in sorted(folder.glob("*.txt")):
        examples = []
        for piece in re.split(r"^Q: ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            asked, _, reply = piece.partition("\nA:")
            said = _ANSWER_IS.findall(reply)
            if not said:
                raise DataError(f"{file}: an example ends without 'the answer is'; found {reply[-60:]!r}")
            row = QuestionRow(str(file), file.stem, 1, {"input": asked.strip(), "target": said[-1]})
            made = read_bbh(row, [])
            examples.append(_question(file.stem, file.stem, asked.strip(), made.expected, made.data, reply.strip()))
        if not examples:
            raise DataError(f"{file} holds no examples; expected pieces that begin with Q: and A:")
        found[file.stem] = tuple(examples)
    return found


def score_words(question: Question, said: str) -> Score:
    """An answer in words or numbers: strictly the whole text, leniently also what it calls the answer, or its end.

    Leniently a number is read as a quantity wherever it stands there, and words and brackets may stand apart otherwise.
    """
    lines = [line for line in said.strip().splitlines() if line.strip()]
    strict = _plain(said) if len(lines) == 1 else None
    ends = [*lines[-1:], *_ANSWER_IS.findall(said)]
    lenient = _plain(re.sub(r"^(?:answer|a)\s*:", "", ends[-1], flags=re.IGNORECASE)) if ends else None
    right = _plain(question.expected)
    if lenient and is_number(right):
        lenient = last_number(lenient) or lenient
    values = {
        "accuracy": float(lenient is not None and (lenient == right or _alike(lenient, right))),
        "unread": float(lenient is None),
        "strict_accuracy": float(strict == right),
        "strict_unread": float(strict is None),
    }
    return Score(values, lenient, note="" if lenient else "the answer is empty")


def _alike(found: str, right: str) -> bool:
    if is_number(right):
        return numbers_equal(found, right)
    if _BRACKETS_ALONE.fullmatch(right):
        return "".join(found.split()) == "".join(right.split())
    return re.split(r"[\s,;]+", found.strip(" ,;")) == right.split()


def _plain(words: str) -> str:
    return normalise(words).strip("\"'*`$").rstrip(".")


def _question(part: str, group: str, asked: str, expected: str, options: Options | None, rationale: str) -> Question:
    if not asked.strip():
        raise BadRow("empty_prompt", "the question is empty")
    texts = options.texts if options else ()
    return Question(
        part, (Message("user", asked.strip()),), expected, texts, group, rationale=rationale.strip(), data=options
    )
