"""How good is it? Tasks on base and adapter in -> one report and a yes or no out.

    TaskSpec + model -> run_task -> TaskResult (base, adapter) -> combine -> EvalReport -> judge_gate -> GateResult

Example:
    >>> from didact.evaluation import EvalReport, judge_gate
    >>> figures = {"eval/chain_sum/accuracy": 0.25}, {"eval/chain_sum/accuracy": 0.75}
    >>> report = EvalReport("base", "adapter", *figures, counts={"eval/chain_sum/accuracy": 100}, examples=())
    >>> judge_gate(report, {"eval/chain_sum/accuracy": 0.1}).passed
    True
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.gate import GateResult, judge_gate
    from didact.evaluation.generate import generate_answers
    from didact.evaluation.items import (
        Comparison,
        Example,
        Item,
        gsm8k_items,
        reasoning_gym_items,
        score_answers,
        task_texts,
    )
    from didact.evaluation.losses import Loss, held_out_loss
    from didact.evaluation.measure import TaskResult, run_task
    from didact.evaluation.report import EvalReport, combine
    from didact.evaluation.scorers.numbers import last_number, numbers_equal
    from didact.evaluation.statistics import higher_is_better, improvement, wilson_interval

__all__ = [
    "Comparison",
    "EvalReport",
    "Example",
    "GateResult",
    "Item",
    "Loss",
    "TaskResult",
    "combine",
    "generate_answers",
    "gsm8k_items",
    "held_out_loss",
    "higher_is_better",
    "improvement",
    "judge_gate",
    "last_number",
    "numbers_equal",
    "reasoning_gym_items",
    "run_task",
    "score_answers",
    "task_texts",
    "wilson_interval",
]

__getattr__ = lazily(__name__)
