"""Records that ask for an answer that can be checked: exams, passages, inference, and answers with a rationale."""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import re

from didact.datasets.forms.drafts import Draft, RowSettings, pair
from didact.datasets.forms.rationales import Reasoned
from didact.datasets.rows.fields import (
    Record,
    first_of,
    items,
    joined,
    optional_text,
    take,
    text,
    texts,
    with_context,
    written,
)
from didact.datasets.rows.options import Language
from didact.datasets.rows.raw_row import BadRow

RATIONALES = ("rationale", "chain_of_thought", "cot", "explanation", "analysis", "solution", "reasoning")
CHOICES = ("choices", "options")
COT_ANSWERS = ("answer", "gold_ans", "pred_ans")
EXPLANATIONS = ("explanation", "explanation_1")
LETTERS = "ABCDEFGH"
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_NLI_LABELS = ("entailment", "neutral", "contradiction")
_NLI_ZH = ("蕴含", "中立", "矛盾")
_NLI: dict[Language, str] = {
    "en": "Premise: {premise}\nHypothesis: {hypothesis}\n\n"
    "What is the hypothesis to the premise: entailment, neutral or contradiction?",
    "zh": "前提：{premise}\n假设：{hypothesis}\n\n假设与前提是什么关系：蕴含、中立还是矛盾？",
}
_PASSAGE: dict[Language, str] = {
    "en": "Answer the question with words from the passage.\n\nPassage:\n{passage}\n\nQuestion: {question}",
    "zh": "请用文中的词语回答问题。\n\n文章：\n{passage}\n\n问题：{question}",
}
_CSL = {
    "to title": "请为下面的论文摘要拟一个标题。",
    "to keywords": "请写出下面论文的关键词，用顿号隔开。",
    "to category": "下面的论文属于哪个学科门类？",
    "to discipline": "下面的论文属于哪个一级学科？",
}


def cot_columns(columns: list[str]) -> Reasoned:
    """Question, answer and rationale, in this order.

    Raises:
        BadRow: another number of columns, or an empty answer or rationale.
    """
    if len(columns) != 3:
        raise BadRow("wrong_columns", f"found {len(columns)} columns, expected 3: question, answer, rationale")
    question, answer, rationale = columns
    return _reasoned(question, rationale, answer)


def csl_columns(columns: list[str]) -> Draft:
    """Task, text and target of the Chinese Scientific Literature tasks.

    Raises:
        BadRow: another number of columns, or a task that is not known.
    """
    if len(columns) != 3:
        raise BadRow("wrong_columns", f"found {len(columns)} columns, expected 3: task, text, target")
    task, given, target = columns
    if task not in _CSL:
        raise BadRow("unknown_label", f"task {task!r} is not one of {', '.join(_CSL)}")
    return pair(f"{_CSL[task]}\n\n{given}", target.replace("_", "、") if task == "to keywords" else target)


def is_csl(columns: list[str]) -> bool:
    """Whether a line's first column names one of those tasks."""
    return columns[0] in _CSL


def reasoning_gym(record: Record, _: RowSettings) -> Draft:
    """An item of a generator: its worked solution where it has one, or the answer."""
    question, answer = text(record, "question"), text(record, "answer")
    metadata = record.get("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRow("not_an_object", f"metadata is {type(metadata).__name__}, expected an object with named fields")
    rationale = metadata.get("answer_cot") or answer
    if not isinstance(rationale, str):
        raise BadRow("wrong_type", f"metadata.answer_cot is {type(rationale).__name__}, expected text")
    return pair(question, rationale, answer)


def cot(record: Record, _: RowSettings) -> Reasoned:
    """A question with rationale and answer under any of their usual names."""
    answer = written(record, first_of(record, COT_ANSWERS))
    question = re.sub(r"\AQ:\s*|\s*\n?A:\s*\Z", "", text(record, "question"))
    return _reasoned(with_context(record, question), text(record, first_of(record, RATIONALES)), answer)


def question_answer(record: Record, _: RowSettings) -> Draft | Reasoned:
    """A question, with `context` where there is one, and its answer.

    `#### 72` at an answer's end divides it into rationale and answer.
    """
    question, reply = with_context(record, text(record, "question")), written(record, "answer")
    rationale, divided, final = reply.rpartition("\n####")
    if not divided:
        return pair(question, reply)
    return _reasoned(question, _CALCULATOR.sub("", rationale), final.strip())


def consultation(record: Record, _: RowSettings) -> Draft:
    """Short and full question of somebody who asks for advice, and the advice."""
    title, asked = optional_text(record, "title"), text(record, "ask")
    return pair(asked if title.strip() in asked else joined(title, asked), text(record, "answer"))


def nli(record: Record, settings: RowSettings) -> Draft | Reasoned:
    """Premise, hypothesis and label, with an explanation where there is one."""
    premise, hypothesis = text(record, "premise"), text(record, "hypothesis")
    label = take(record, "label")
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(_NLI_LABELS):
        place = label
    elif isinstance(label, str) and label.strip().lower() in _NLI_LABELS:
        place = _NLI_LABELS.index(label.strip().lower())
    else:
        raise BadRow("unknown_label", f"label {label!r} is not one of {', '.join(_NLI_LABELS)} or 0 to 2")
    language = settings.language(premise)
    if not premise.strip() or not hypothesis.strip():
        raise BadRow("empty_prompt", "the premise or the hypothesis is empty")
    question = _NLI[language].format(premise=premise.strip(), hypothesis=hypothesis.strip())
    answer = (_NLI_ZH if language == "zh" else _NLI_LABELS)[place]
    key = first_of(record, EXPLANATIONS)
    return (
        pair(question, answer, answer) if key not in record else _reasoned(question, text(record, key).strip(), answer)
    )


def extractive_qa(record: Record, settings: RowSettings) -> Draft:
    """A passage, a question and answers that stand in the passage: the first answer."""
    answers = take(record, "answers")
    given = texts(answers, "text") if isinstance(answers, dict) else texts(record, "answers")
    found = [answer.strip() for answer in given if answer.strip()]
    if not found:
        raise BadRow("empty_output", "the passage holds no answer")
    question, passage = text(record, "question"), text(record, "context")
    if not question.strip() or not passage.strip():
        raise BadRow("empty_prompt", "the question or the passage is empty")
    template = _PASSAGE[settings.language(question)]
    return pair(template.format(passage=passage, question=question), found[0], found[0])


def exam(record: Record, _: RowSettings) -> Draft | Reasoned:
    """An exam question with its choices, answer and, where there is one, worked solution.

    The choices are fields `A`, `B`, ... or a list; the answer is a letter, several letters, the text of a choice or
    its number from 0. The answer given is the letter with the choice's text.
    """
    question = with_context(record, text(record, "question"))
    choices = _choices(record)
    asked = "\n".join([question.rstrip(), *(f"{letter}. {choice}" for letter, choice in choices.items())])
    answer = _exam_answer(record, choices)
    solution = next((text(record, key) for key in RATIONALES if record.get(key)), "")
    if not question.strip():
        raise BadRow("empty_prompt", "the question is empty")
    return _reasoned(asked, solution, answer) if solution.strip() else pair(asked, answer, answer)


def textbook(record: Record, _: RowSettings) -> Draft | Reasoned:
    """An exam question in the fields of an annotation tool (`textbox_...`)."""
    asked = joined(
        optional_text(record, "textbox_q_instruction"),
        optional_text(record, "textbox_q_context"),
        text(record, "textbox_question"),
    )
    answer, solution = text(record, "textbox_answer").strip(), optional_text(record, "textbox_answer_analysis")
    return _reasoned(asked, solution, answer) if solution.strip() else pair(asked, answer, answer)


def _reasoned(question: str, rationale: str, answer: str) -> Reasoned:
    for name, value in (("answer", answer), ("rationale", rationale)):
        if not value.strip():
            raise BadRow("empty_output", f"the {name} is empty")
    return Reasoned(question, rationale, answer)


def _choices(record: Record) -> dict[str, str]:
    key = first_of(record, CHOICES)
    if key not in record:
        return {letter: written(record, letter) for letter in LETTERS if record.get(letter) is not None}
    given = record[key]
    if isinstance(given, dict) and "text" not in given:
        return {str(letter): written(given, letter) for letter in given}
    if given is None:
        return {}
    found = texts(given, "text") if isinstance(given, dict) else texts(record, key)
    if len(found) > len(LETTERS):
        raise BadRow("wrong_type", f"{len(found)} choices; at most {len(LETTERS)} are expected")
    lettered = zip(LETTERS, found, strict=False)
    return {letter: re.sub(rf"\A\(?{letter}[).:．、]\s*", "", choice) for letter, choice in lettered}


def _exam_answer(record: Record, choices: dict[str, str]) -> str:
    given = take(record, "answer")
    if isinstance(given, list):
        given = "".join(str(letter) for letter in items(record, "answer"))
    elif isinstance(given, int) and not isinstance(given, bool) and choices:
        if not 0 <= given < len(choices):
            raise BadRow("unknown_label", f"answer {given} is no choice; there are {len(choices)}")
        given = list(choices)[given]
    else:
        given = written(record, "answer")
    letter = given.strip().strip("()").upper()
    if letter in choices:
        return f"{letter}. {choices[letter]}"
    by_text = {choice.strip(): name for name, choice in choices.items()}
    if given.strip() in by_text:
        return f"{by_text[given.strip()]}. {given.strip()}"
    if choices and not set(letter) <= set(choices):
        raise BadRow("unknown_label", f"answer {given!r} is none of the choices {', '.join(choices)}")
    return given.strip()
