"""What is measured after training, and what a model must reach before it is a candidate.

    evaluation.yaml -> load_spec -> EvaluateSpec: the model, and tasks by name with their scorers

Example:
    >>> from didact.spec import EvaluateSpec, load_spec
    >>> [task.task for task in load_spec(EvaluateSpec, "jobs/evaluations/demo.yaml").evaluation.tasks]
    ['reasoning_gym']
"""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from didact.spec.base import Spec
from didact.spec.evaluation.choices import (
    AquaTask,
    BbhTask,
    CevalTask,
    ChoiceTask,
    CmmluTask,
    MmcuTask,
    MmluTask,
    StrategyQaTask,
)
from didact.spec.evaluation.endpoint import EndpointSpec, PriceSpec
from didact.spec.evaluation.gate import GateSpec
from didact.spec.evaluation.harness import IfEvalTask, LmEvalTask
from didact.spec.evaluation.judged import (
    BelleEvalTask,
    CompareTask,
    JudgedTask,
    JudgedTasks,
    MtBenchTask,
    VicunaBenchTask,
    needs_judge,
    needs_rival,
)
from didact.spec.evaluation.judging import AnswererSpec, JudgingSpec
from didact.spec.evaluation.questions import QuestionsTask
from didact.spec.evaluation.scorers import (
    ChoiceScorer,
    CodeScorer,
    ContainsScorer,
    ExactScorer,
    F1Scorer,
    FunctionPath,
    FunctionScorer,
    JsonSchemaScorer,
    JudgeScorer,
    NumberScorer,
    RegexScorer,
    RougeScorer,
    ScorerName,
    ScorerSpec,
    SetScorer,
    full_scorer,
)
from didact.spec.evaluation.tasks import (
    Gsm8kTask,
    HeldOutTask,
    PerplexityTask,
    QuestionTask,
    ReasoningGymTask,
    TextQuestionTask,
)
from didact.spec.model import ModelSpec

__all__ = [
    "AnswererSpec",
    "AquaTask",
    "BbhTask",
    "BelleEvalTask",
    "CevalTask",
    "ChoiceScorer",
    "ChoiceTask",
    "CmmluTask",
    "CodeScorer",
    "CompareTask",
    "ContainsScorer",
    "EndpointSpec",
    "EvaluateSpec",
    "EvaluationSpec",
    "ExactScorer",
    "F1Scorer",
    "FunctionPath",
    "FunctionScorer",
    "GateSpec",
    "Gsm8kTask",
    "HeldOutTask",
    "IfEvalTask",
    "JsonSchemaScorer",
    "JudgeScorer",
    "JudgedTask",
    "JudgingSpec",
    "LmEvalTask",
    "MmcuTask",
    "MmluTask",
    "MtBenchTask",
    "NumberScorer",
    "PerplexityTask",
    "PriceSpec",
    "QuestionTask",
    "QuestionsTask",
    "ReasoningGymTask",
    "RegexScorer",
    "RegisterSpec",
    "RougeScorer",
    "ScorerName",
    "ScorerSpec",
    "SetScorer",
    "StrategyQaTask",
    "TaskSpec",
    "TextQuestionTask",
    "VicunaBenchTask",
    "full_scorer",
    "needs_judge",
    "needs_rival",
    "reported_names",
]

TaskSpec = Annotated[
    HeldOutTask
    | ReasoningGymTask
    | Gsm8kTask
    | LmEvalTask
    | IfEvalTask
    | QuestionsTask
    | JudgedTasks
    | PerplexityTask
    | MmluTask
    | CmmluTask
    | CevalTask
    | MmcuTask
    | AquaTask
    | StrategyQaTask
    | BbhTask,
    Field(discriminator="task"),
]


def reported_names(tasks: Iterable[TaskSpec]) -> list[str]:
    """What each task's metrics stand under, as in `eval/NAME/accuracy`."""
    return [getattr(task, "name", None) or task.task for task in tasks]


class EvaluationSpec(Spec):
    """Tasks run on the base and on the adapter, side by side."""

    tasks: tuple[TaskSpec, ...] = (HeldOutTask(task="held_out"),)
    """What to measure."""
    batch_size: int = Field(default=16, ge=1)
    """Prompts generated together."""

    judge: AnswererSpec | None = None
    """Who judges, where a task needs a judge."""
    rival: AnswererSpec | None = None
    """Whose answers those of the model are compared with, where a task compares."""

    @model_validator(mode="after")
    def _who_is_asked(self) -> Self:
        for place, task in enumerate(self.tasks):
            if self.judge is None and needs_judge(task):
                raise ValueError(f"tasks.{place} ({task.task}) needs a judge; set evaluation.judge")
            if self.rival is None and needs_rival(task):
                raise ValueError(f"tasks.{place} ({task.task}) compares with a rival; set evaluation.rival")
        return self

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        names = reported_names(tasks)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"two tasks report as {twice[0]!r}; keep one, or put the other into an evaluation of its own"
            )
        return tasks


class RegisterSpec(Spec):
    """How the adapter enters the registry."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Registered model; also the name by which the serving API offers the adapter."""
    alias: Literal["candidate", "champion"] | None = "candidate"
    """Alias set on the new version when the gate lets it pass."""
    gate: GateSpec = GateSpec()
    """What must hold before the alias is set. A metric with a number, such as `eval/chain_sum/accuracy: 0.1`, is the
    least improvement over the base, for losses the least fall."""


class EvaluateSpec(Spec):
    """A stand-alone evaluation: `didact evaluate FILE`."""

    model: ModelSpec = ModelSpec()
    """The base model; left out, the one that the adapter was trained on."""
    adapter: str | None = None
    """An adapter folder, a run folder, or a registered `name`, `name@alias`, `name:version`; none: base alone."""
    beside: tuple[str, ...] = ()
    """More that are asked the same, each named as `adapter` may be, such as `demo@champion`."""
    endpoint: EndpointSpec | None = None
    """A model behind an address, in place of all of these."""
    evaluation: EvaluationSpec
    """What to measure. `held_out` needs a run folder as `adapter`, whose recipe names the rows."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if not self.evaluation.tasks:
            raise ValueError("evaluation.tasks: found none; expected what to measure, such as held_out or questions")
        if self.endpoint is not None and (given := sorted(self.model_fields_set & {"model", "adapter", "beside"})):
            raise ValueError(f"found endpoint and {given[0]}; expected one of them")
        return self

    @field_validator("beside")
    @classmethod
    def _once(cls, beside: tuple[str, ...]) -> tuple[str, ...]:
        for name in beside:
            if beside.count(name) > 1 or name in ("base", "adapter"):
                raise ValueError(f"found {name!r}; expected each name once, and neither base nor adapter")
        return beside
