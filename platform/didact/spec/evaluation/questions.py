"""Questions of one's own, in a file of one's own."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from didact.spec.evaluation.scorers import ExactScorer, FunctionPath, JudgeScorer, ScorerName, ScorerSpec, full_scorer
from didact.spec.evaluation.tasks import TextQuestionTask
from didact.spec.explain.schema import Says

FieldRule = Annotated[str | tuple[str, ...], Says("the name of a field, or a list of names")]


class QuestionsTask(TextQuestionTask):
    """Questions out of a file, with answers that a scorer by name compares with.

    A row has `question` (or `messages`: role and content of each turn) and what its scorer needs: `answer` (a text, a
    number, or a list of accepted answers), `options`, `tests`, `schema`. It may have `system`, `passage`, `rationale`,
    `class`, `id`, and any other fields, which a template and a scorer of one's own can use.
    """

    task: Literal["questions"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """Its name in figures: `eval/<name>/accuracy`."""
    path: str = Field(min_length=1)
    """JSON lines, JSON, CSV, Parquet: a file, folder, glob or URL; or `hf:OWNER/NAME[:CONFIG]`."""
    scorer: ScorerName | FunctionPath | ScorerSpec = ExactScorer(name="exact")
    """When an answer is right: a scorer's name, or its name with options, or the path of a Python function."""
    fields: dict[str, FieldRule] = Field(default_factory=dict)
    """Where a row keeps what, under other names: `{question: prompt, answer: solution}`. Options in columns of their
    own are a list: `{options: [A, B, C, D]}`."""
    template: str | None = Field(default=None, min_length=1)
    """What the user says, with fields of the row in it: `"Translate: {question}"`; or Jinja, as text or as a file such
    as `ask.jinja`. Left out: the passage, the question, and its options with letters."""
    system: str | None = None
    """The system message of questions that have none of their own."""
    examples: str | None = None
    """Where worked examples for `few_shot` are, in the same form; left out, the folder `dev` of a folder of splits."""
    split: str = "test"
    """Of a Hugging Face dataset, or of a folder that holds a folder for each split."""
    options: dict[str, Any] = Field(default_factory=dict)
    """How files are written, as `options` of a source: `encoding`, `delimiter`, `container`, `columns`, `each`."""
    max_bad_rows_share: float = Field(default=0.0, ge=0, le=1)
    """Rows that cannot be used are left out and named; a larger share of them stops the evaluation."""

    @model_validator(mode="after")
    def _one_answer_to_judge(self) -> Self:
        if isinstance(full_scorer(self.scorer), JudgeScorer) and (self.samples > 1 or self.faithfulness):
            raise ValueError("scorer: judge scores one answer to a question; set samples: 1 and faithfulness: false")
        return self
