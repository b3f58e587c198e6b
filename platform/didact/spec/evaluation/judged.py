"""Tasks that a judge scores: one class a benchmark."""

from typing import Literal, Self

from pydantic import Field, model_validator

from didact.spec.base import Spec
from didact.spec.evaluation.judging import JudgingSpec
from didact.spec.evaluation.questions import QuestionsTask
from didact.spec.evaluation.scorers import JudgeScorer, full_scorer
from didact.spec.evaluation.tasks import QuestionTask


class JudgedTask(QuestionTask):
    """What tasks that a judge scores have in common. `evaluation.judge` says who judges."""

    judging: JudgingSpec = JudgingSpec()
    """How answers are judged."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest answer, in tokens."""
    max_bad_rows_share: float = Field(default=0.01, ge=0, le=1)
    """Rows that cannot be used are left out and named; a larger share of them stops the evaluation."""

    @model_validator(mode="after")
    def _one_plain_answer(self) -> Self:
        if self.samples > 1:
            raise ValueError("samples: a judge scores one answer to a question; expected 1")
        if self.few_shot or self.prompt != "direct":
            raise ValueError(
                "few_shot and prompt are for tasks whose answers are read; these questions are asked as they are"
            )
        return self


class BelleEvalTask(JudgedTask):
    """Belle-eval (Ji et al., 2023): Chinese instructions in 10 classes, some with a right answer, scored 0 to 1.

    Reads `question`, `std_answer` and `class` as JSON lines or as one array.
    """

    task: Literal["belle_eval"]
    path: str = Field(min_length=1)
    """Its `eval_set.json`."""
    by: Literal["judge", "reference"] = "judge"
    """`reference` asks nobody: ROUGE between an answer and the question's `std_answer`, for questions that have one. It
    tells how alike texts are, not how good an answer is."""

    @model_validator(mode="after")
    def _judging_needs_a_judge(self) -> Self:
        if self.by == "reference" and "judging" in self.model_fields_set:
            raise ValueError("judging: by: reference asks no judge; leave judging out, or set by: judge")
        return self


class BenchTask(JudgedTask):
    """What the benches of FastChat's llm_judge have in common."""

    path: str = Field(min_length=1)
    """Its `question.jsonl`: `question_id`, `category` and `turns`."""
    references: str | None = None
    """Right answers, such as `reference_answer/gpt-4.jsonl`; MT-bench has them for math, reasoning and coding."""
    by: Literal["score", "pairwise"] = "score"
    """`score` from 1 to 10, or `pairwise` against the answers of `evaluation.rival`."""


class MtBenchTask(BenchTask):
    """MT-bench (Zheng et al., 2023): 80 questions in 8 categories, each with a second turn."""

    task: Literal["mt_bench"]


class VicunaBenchTask(BenchTask):
    """Vicuna-bench (2023): 80 questions in 9 categories, one turn each."""

    task: Literal["vicuna_bench"]


class CompareTask(JudgedTask):
    """Any questions, answered by two: the judge says which answer is better."""

    task: Literal["compare"]
    name: str = Field(default="compare", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Its name in figures."""
    path: str = Field(min_length=1)
    """Questions: JSON lines, JSON or CSV with `question` (or `messages`) and, where there are some, `answer` and
    `class`; also `hf:OWNER/NAME[:CONFIG]`."""
    split: str = "test"
    """Of a Hugging Face dataset."""
    against: Literal["rival", "reference"] = "rival"
    """`rival`: the model of `evaluation.rival`; `reference`: each question's `answer`."""


JudgedTasks = BelleEvalTask | MtBenchTask | VicunaBenchTask | CompareTask


def needs_judge(task: Spec) -> bool:
    """Whether a task's answers are judged by a model."""
    if isinstance(task, QuestionsTask):
        return isinstance(full_scorer(task.scorer), JudgeScorer)
    return isinstance(task, JudgedTask) and not (isinstance(task, BelleEvalTask) and task.by == "reference")


def needs_rival(task: Spec) -> bool:
    """Whether a task's answers are compared with those of another model."""
    if isinstance(task, CompareTask):
        return task.against == "rival"
    return isinstance(task, BenchTask) and task.by == "pairwise"
