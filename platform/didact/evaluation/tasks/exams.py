"""Rows of multiple-choice exams: MMLU, CMMLU, C-Eval, AQuA and MMCU, in the forms in which they are published."""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from didact.datasets.conversation import Message
from didact.datasets.rows.fields import Record
from didact.datasets.rows.raw_row import BadRow
from didact.evaluation.questions import Question
from didact.evaluation.scorers.options import LETTERS, Options, equal_options, label_of, letters_of
from didact.evaluation.tasks.question_files import QuestionRow

_MAX_OPTIONS = 10
_WIDE = ord("Ａ") - ord("A")
EXAM_COLUMNS = ("question", "A", "B", "C", "D", "answer")
"""Of the original MMLU, whose files name no columns."""
_QUESTION = ("question", "题目", "问题")
_ANSWER = ("answer", "答案", "正确答案", "correct")
_RATIONALE = ("explanation", "rationale", "解析")
_SUBJECT = ("subject", "类别")
_CHOICES = ("choices", "options", "选项")
_CHOICE = re.compile(r"(?:choice|option|选项)?[ _]?([a-j]|[0-9])")
_SPLITS = ("dev", "val", "validation", "test", "train")
_SPLIT = re.compile(rf"_(?:{'|'.join(_SPLITS)})$")
# A workbook's sheet or file for each subject of medicine is named so, as in 临床医学101题.
_COUNTED = re.compile(r"\d+题$")
_DISCIPLINES = {"医疗": "medicine", "医学": "medicine", "心理": "psychology", "法律": "law", "教育": "education"}
# Answers that its authors give on their page, by subject and number.
_MMCU_MISSING = {("心理", 306): "B", ("传染病学", 126): "A", ("传染病学", 155): "C"}


def read_exam(row: QuestionRow, corrections: list[str]) -> Question:
    """A question with one right option, given as letter, as its number from 0, or as the option's text.

    Raises:
        BadRow: no question, fewer than two options, no answer, or one that is no option.
    """
    record = _plain_keys(row.record)
    texts = _option_texts(record)
    labels = tuple(LETTERS[: len(texts)])
    given = _answer(record)
    label = label_of(given, texts)
    if not label:
        raise BadRow("unknown_label", f"answer {given!r} is none of the options {', '.join(labels)}")
    if twice := equal_options(texts):
        corrections.append(f"{row.place}: the options {twice}; the key says {label}")
    part = _subject(record, row)
    group = "" if part in _SPLITS else part
    return _made(record, part, group, Options(labels, texts), label)


def read_mmcu(row: QuestionRow, corrections: list[str]) -> Question:
    """A question of MMCU: its answer is the set of right letters. Malformed keys are mended, and that is noted.

    Mended are full-width and small letters, letters in another order or twice, marks and line breaks between them,
    letters of which there is no option, and the three keys whose answers the authors publish on their page.

    Raises:
        BadRow: no question, fewer than two options, or a key that names none of them.
    """
    record = _plain_keys(row.record)
    if not set(_QUESTION) & set(record) and len(record) >= 4:
        record = _by_position(record)
    texts = _option_texts(record)
    labels = tuple(LETTERS[: len(texts)])
    part = _COUNTED.sub("", _subject(record, row))
    known = "" if _first(record, _ANSWER) else _MMCU_MISSING.get((part, row.number), "")
    given = str(_answer(record, instead=known))
    right = letters_of(given, texts)
    if not right:
        raise BadRow("unknown_label", f"answer {given!r} names none of the options {', '.join(labels)}")
    if right != given or known:
        corrections.append(f"{row.place}: the answer {'' if known else given!r} is read as {right}")
    discipline = next((name for word, name in _DISCIPLINES.items() if part.startswith(word)), "medicine")
    return _made(record, part, discipline, Options(labels, texts, several=len(right) > 1), right)


def _plain_keys(record: Record) -> dict[str, Any]:
    return {str(key).strip().casefold(): value for key, value in record.items()}


def _by_position(record: Mapping[str, Any]) -> dict[str, Any]:
    """Under whatever names: question, options, answer."""
    values = list(record.values())
    options = {letter.casefold(): value for letter, value in zip(LETTERS, values[1:-1], strict=False)}
    return {"question": values[0], **options, "answer": values[-1]}


def _first(record: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _option_texts(record: Mapping[str, Any]) -> tuple[str, ...]:
    given = _first(record, _CHOICES)
    if isinstance(given, dict):
        given = given.get("text", list(given.values()))
    if isinstance(given, str):
        given = re.split(r"\n(?=\s*[A-JＡ-Ｊ]\s*[.:：、．)）])", given.strip())
    if given is None:
        named = ((_CHOICE.fullmatch(key), value) for key, value in record.items())
        given = [value for _, value in sorted((found[1], value) for found, value in named if found)]
    if not isinstance(given, list):
        raise BadRow("wrong_type", f"the options are {type(given).__name__}, expected a list or text")
    texts = ["" if each is None else str(each).strip() for each in given]
    while texts and not texts[-1]:
        texts.pop()
    if not 2 <= len(texts) <= _MAX_OPTIONS or not all(texts):
        raise BadRow("missing_field", f"found {len(texts)} options ({texts}); expected 2 to {_MAX_OPTIONS}, none empty")
    return _without_letters(tuple(unicodedata.normalize("NFC", text) for text in texts))


def _without_letters(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Options without the letters before them, where each has its own: that of `A. Einstein` alone is of the name."""
    marks = [
        re.match(rf"[(（]?(?:{letter}|{chr(ord(letter) + _WIDE)})\s*[.:：、．)）]\s*(?=\S)", text)
        for letter, text in zip(LETTERS, texts, strict=False)
    ]
    return tuple(text[mark.end() :] for mark, text in zip(marks, texts, strict=True) if mark) if all(marks) else texts


def _answer(record: Mapping[str, Any], instead: str = "") -> str | int:
    given = _first(record, _ANSWER)
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    text = "".join(map(str, given)) if isinstance(given, list) else str(given if given is not None else "").strip()
    if not text and not instead:
        raise BadRow("empty_output", "the question has no answer; answers of some published test splits are not public")
    return text or instead


def _subject(record: Mapping[str, Any], row: QuestionRow) -> str:
    given = _first(record, _SUBJECT)
    return str(given).strip() if given else _SPLIT.sub("", row.stem)


def _made(record: Mapping[str, Any], part: str, group: str, options: Options, expected: str) -> Question:
    text = str(_first(record, _QUESTION) or "").strip()
    if not text:
        raise BadRow("empty_prompt", "the question is empty")
    rationale = _first(record, _RATIONALE)
    return Question(
        id=part,
        messages=(Message("user", text),),
        expected=expected,
        options=options.texts,
        group=group,
        rationale=str(rationale).strip() if rationale else "",
        data=options,
    )
