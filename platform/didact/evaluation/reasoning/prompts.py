"""What is put around a question: an instruction, and worked examples as turns before it."""

from collections.abc import Sequence
from dataclasses import dataclass

from didact.datasets.conversation import Message
from didact.datasets.forms.language import language_of
from didact.evaluation.questions import Question
from didact.spec import QuestionTask

PROMPTS_VERSION = 1
"""Another one where the wording changes, so that figures of another wording are not taken for these."""


@dataclass(frozen=True, slots=True)
class Wording:
    """Instructions in one language."""

    answer_only: str
    step_by_step: str
    mark: str
    """What the line with the answer begins with, after reasoning."""


WORDINGS = {
    "en": Wording(
        "Give only the answer, without any explanation.",
        'Think step by step. Then write the answer alone on a last line that begins with "Answer:".',
        "Answer:",
    ),
    "zh": Wording(
        "请只给出答案\uff0c不要解释。",
        "请一步一步地思考\uff0c最后另起一行\uff0c以“答案\uff1a”开头写出答案。",
        "答案\uff1a",
    ),
}


def wording_of(question: Question) -> Wording:
    """The wording in the language of a question."""
    return WORDINGS[language_of(question.text)]


def prompt_of(question: Question, settings: QuestionTask, examples: Sequence[Question] = ()) -> tuple[Message, ...]:
    """The turns that a model is given.

    Args:
        question: what is asked.
        settings: the kind of prompt, and how many examples stand before the question.
        examples: questions with answers. Those of the question's own group are taken first, the question itself never.
    """
    system = [each for each in question.messages[:1] if each.role == "system"]
    turns = [turn for example in _chosen(question, settings, examples) for turn in _worked(example, settings)]
    return (*system, *turns, *_instructed(question, settings)[len(system) :])


def _chosen(question: Question, settings: QuestionTask, examples: Sequence[Question]) -> list[Question]:
    others = [each for each in examples if each.messages != question.messages]
    near = [each for each in others if each.group == question.group]
    far = [each for each in others if each.group != question.group]
    return [*near, *far][: settings.few_shot]


def _worked(example: Question, settings: QuestionTask) -> tuple[Message, ...]:
    answer = example.expected
    if settings.prompt == "step_by_step":
        last = f"{wording_of(example).mark} {answer}"
        answer = f"{example.rationale.strip()}\n{last}" if example.rationale.strip() else last
    asked = [each for each in _instructed(example, settings) if each.role != "system"]
    return (*asked, Message("assistant", answer))


def _instructed(question: Question, settings: QuestionTask) -> tuple[Message, ...]:
    wording = wording_of(question)
    instruction = {"answer_only": wording.answer_only, "step_by_step": wording.step_by_step}.get(settings.prompt)
    if instruction is None:
        return question.messages
    *before, last = question.messages
    return (*before, Message(last.role, f"{last.content.rstrip()}\n\n{instruction}"))
