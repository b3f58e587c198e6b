"""How good is it? Tasks on base and adapter in -> one report and a yes or no out.

    TaskSpec -> build_task -> Task, asked of a Model by run_task -> TaskResult (base, adapter) -> combine -> EvalReport
    -> judge_gate -> GateResult

Example:
    >>> from didact.evaluation import EvalReport, ModelFacts, judge_gate
    >>> models = {"base": ModelFacts("smollm2"), "adapter": ModelFacts("demo:3")}
    >>> figures = {"base": {"eval/chain_sum/accuracy": 0.25}, "adapter": {"eval/chain_sum/accuracy": 0.75}}
    >>> report = EvalReport(models, figures, counts={"eval/chain_sum/accuracy": 100})
    >>> judge_gate(report, {"eval/chain_sum/accuracy": 0.1}).passed
    True
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.answer_store import KeptAnswers, kept_answers
    from didact.evaluation.asks import (
        Answer,
        Ask,
        Generation,
        Identity,
        Likelihood,
        Likely,
        Model,
        Prompt,
        Role,
        Text,
        TokenIds,
    )
    from didact.evaluation.checks import Check
    from didact.evaluation.gate import GateResult, judge_gate
    from didact.evaluation.held_out import held_out_result
    from didact.evaluation.likelihood import log_likelihoods
    from didact.evaluation.losses import Loss, held_out_loss
    from didact.evaluation.policy import judge_policy
    from didact.evaluation.questions import Question, Score, Task
    from didact.evaluation.report.comparisons import Comparison, compare_task
    from didact.evaluation.report.facts import Given, ModelFacts, QuestionFacts, Searched, TaskFacts
    from didact.evaluation.report.report import EvalReport
    from didact.evaluation.report.side_by_side import combine
    from didact.evaluation.results import Scored, TaskResult
    from didact.evaluation.run import Asked, Watch, run_task
    from didact.evaluation.scorers.numbers import last_number, numbers_equal
    from didact.evaluation.statistics import higher_is_better, improvement, wilson_interval
    from didact.evaluation.tasks.once import TaskReader, task_texts
    from didact.evaluation.tasks.table import build_task

__all__ = [
    "Answer",
    "Ask",
    "Asked",
    "Check",
    "Comparison",
    "EvalReport",
    "GateResult",
    "Generation",
    "Given",
    "Identity",
    "KeptAnswers",
    "Likelihood",
    "Likely",
    "Loss",
    "Model",
    "ModelFacts",
    "Prompt",
    "Question",
    "QuestionFacts",
    "Role",
    "Score",
    "Scored",
    "Searched",
    "Task",
    "TaskFacts",
    "TaskReader",
    "TaskResult",
    "Text",
    "TokenIds",
    "Watch",
    "build_task",
    "combine",
    "compare_task",
    "held_out_loss",
    "held_out_result",
    "higher_is_better",
    "improvement",
    "judge_gate",
    "judge_policy",
    "kept_answers",
    "last_number",
    "log_likelihoods",
    "numbers_equal",
    "run_task",
    "task_texts",
    "wilson_interval",
]

__getattr__ = lazily(__name__)
