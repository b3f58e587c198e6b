"""Asking for reasoning, reading the answer behind it, and asking whether the answer rests on it.

    Question, examples -> prompt_of -> Generation -> read_answer -> of_samples -> Score; probes of the reasoning

Example:
    >>> from didact.evaluation.reasoning import read_answer
    >>> read_answer("Three boxes of 4 are 12.\\nAnswer: 12", stepwise=True, reads="answer")
    '12'
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.reasoning.faithfulness import probe_asks, probe_values
    from didact.evaluation.reasoning.prompts import PROMPTS_VERSION, prompt_of
    from didact.evaluation.reasoning.reading import answer_mark, rationale_in, read_answer, without_thoughts
    from didact.evaluation.reasoning.samples import of_samples, pass_at

__all__ = [
    "PROMPTS_VERSION",
    "answer_mark",
    "of_samples",
    "pass_at",
    "probe_asks",
    "probe_values",
    "prompt_of",
    "rationale_in",
    "read_answer",
    "without_thoughts",
]

__getattr__ = lazily(__name__)
