"""How a multiple choice is put to a model, and how its answer looks: in English, in Chinese, and as in MMCU."""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
from collections.abc import Sequence
from dataclasses import dataclass, replace

from didact.datasets.conversation import Message
from didact.evaluation.questions import Question
from didact.evaluation.scorers.options import Options
from didact.spec import ChoiceTask


@dataclass(frozen=True, slots=True)
class Wording:
    """The words around questions."""

    ask: str
    """Around `{question}`, which holds its options, and `{form}`."""
    forms: tuple[str, str, str, str]
    """What is asked for: one letter, several letters, one of `{labels}`, or an answer in words of its own."""
    step_by_step: tuple[str, str, str, str]
    """The same where reasoning comes first."""
    answer: str
    """Around `{label}`, the line that reasoning ends with."""
    close: str
    """Ends a set of letters, so that likelihoods tell A from the beginning of AB."""
    alternative: str
    """Between the last two labels."""


ENGLISH = Wording(
    ask="{question}\n\n{form}",
    forms=(
        "Answer with the letter of the right option and nothing else.",
        "Answer with the letters of all right options and nothing else.",
        "Answer with {labels} and nothing else.",
        "Give the answer and nothing else.",
    ),
    step_by_step=(
        "Think step by step. End with a line 'Answer: ' and the letter of the right option.",
        "Think step by step. End with a line 'Answer: ' and the letters of all right options.",
        "Think step by step. End with a line 'Answer: ' and {labels}.",
        "Think step by step. End with a line 'The answer is ' and the answer.",
    ),
    answer="Answer: {label}",
    close=".",
    alternative=" or ",
)
CHINESE = Wording(
    ask="{question}\n\n{form}",
    forms=(
        "请只回答正确选项的字母，不要解释原因。",
        "请只回答所有正确选项的字母，不要解释原因。",
        "请只回答{labels}，不要解释原因。",
        "请只给出答案，不要解释原因。",
    ),
    step_by_step=(
        "请一步一步地思考，最后一行写“答案：”和正确选项的字母。",
        "请一步一步地思考，最后一行写“答案：”和所有正确选项的字母。",
        "请一步一步地思考，最后一行写“答案：”和{labels}。",
        "请一步一步地思考，最后一行写“答案：”和答案。",
    ),
    answer="答案：{label}",
    close="。",
    alternative="或",
)
MMCU_DIRECT = replace(CHINESE, ask="请阅读以下选择题并给出正确选项，不要解释原因。\n{question}\n正确答案的序号是：")
"""As its authors ask: https://github.com/Felixgithub2017/MMCU."""


@dataclass(frozen=True, slots=True)
class ChoicePrompts:
    """A benchmark's way to ask."""

    settings: ChoiceTask
    wording: Wording
    lists_options: bool
    """Whether options are to be written under the question; elsewhere its text holds them, or they are words."""

    def prompt(self, question: Question, examples: Sequence[Question]) -> tuple[Message, ...]:
        """Worked examples as turns of their own, then the question. An example that is the question is left out."""
        others = [each for each in examples if each.text != question.text][: self.settings.few_shot]
        alike = [_as_in(each, question) for each in others]
        turns = [(Message("user", self._asked(each)), Message("assistant", self._worked(each))) for each in alike]
        return (*(message for turn in turns for message in turn), Message("user", self._asked(question)))

    def said(self, question: Question, label: str) -> str:
        """An answer as its likelihood is asked for."""
        options: Options = question.data
        if self.compares_texts(question):
            return options.texts[options.labels.index(label)]
        return label + self.wording.close if options.several else label

    def compares_texts(self, question: Question) -> bool:
        """Whether options are compared by their own words, after the bare question."""
        return self.settings.options_as == "texts" and bool(question.options)

    def _asked(self, question: Question) -> str:
        if self.compares_texts(question):
            return question.text
        options: Options | None = question.data
        lines = [question.text]
        if options is not None and self.lists_options:
            lines += [f"{label}. {text}" for label, text in zip(options.labels, options.texts, strict=True)]
        return self.wording.ask.format(question="\n".join(lines), form=self._form(options))

    def _form(self, options: Options | None) -> str:
        forms = self.wording.step_by_step if self.settings.prompt == "step_by_step" else self.wording.forms
        if options is None:
            return forms[3]
        return forms[int(options.several)] if options.lettered else forms[2].format(labels=self._either(options))

    def _either(self, options: Options) -> str:
        return ", ".join(options.labels[:-1]) + self.wording.alternative + options.labels[-1]

    def _worked(self, example: Question) -> str:
        if self.settings.prompt == "step_by_step":
            closing = self.wording.answer.format(label=example.expected)
            return f"{example.rationale}\n{closing}" if example.rationale else closing
        if self.settings.by == "likelihood" and example.data is not None:
            return self.said(example, example.expected)
        return example.expected


def _as_in(example: Question, question: Question) -> Question:
    """An example put like the question, which may have several right options."""
    own: Options | None = example.data
    several = question.data is not None and question.data.several
    return example if own is None else replace(example, data=replace(own, several=several))
