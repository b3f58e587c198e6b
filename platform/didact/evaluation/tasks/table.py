"""The table of tasks: from a spec to what is asked."""

from collections.abc import Callable
from typing import Any

from didact.evaluation.harness import require_lm_eval
from didact.evaluation.questions import Task
from didact.evaluation.tasks.belle_eval import build_belle_eval
from didact.evaluation.tasks.benches import build_bench
from didact.evaluation.tasks.compare import build_compare
from didact.evaluation.tasks.gsm8k import build_gsm8k
from didact.evaluation.tasks.ifeval import build_ifeval
from didact.evaluation.tasks.multiple_choice import build_choices
from didact.evaluation.tasks.own import build_questions
from didact.evaluation.tasks.perplexity import build_perplexity
from didact.evaluation.tasks.reasoning_gym import build_reasoning_gym
from didact.spec import (
    BelleEvalTask,
    ChoiceTask,
    CompareTask,
    Gsm8kTask,
    HeldOutTask,
    IfEvalTask,
    LmEvalTask,
    MtBenchTask,
    PerplexityTask,
    QuestionsTask,
    ReasoningGymTask,
    TaskSpec,
    VicunaBenchTask,
)


def _build_lm_eval(spec: LmEvalTask) -> Task:
    require_lm_eval("lm_eval")
    from didact.evaluation.harness import build_lm_eval  # an extra, which is there only now for certain

    return build_lm_eval(spec)


_BUILDERS: dict[type, Callable[[Any], Task]] = {
    BelleEvalTask: build_belle_eval,
    CompareTask: build_compare,
    Gsm8kTask: build_gsm8k,
    MtBenchTask: build_bench,
    ReasoningGymTask: build_reasoning_gym,
    LmEvalTask: _build_lm_eval,
    IfEvalTask: build_ifeval,
    PerplexityTask: build_perplexity,
    QuestionsTask: build_questions,
    VicunaBenchTask: build_bench,
}


def build_task(spec: TaskSpec) -> Task | None:
    """Read a task's questions; None for held-out rows, which ask nothing.

    Raises:
        DataError: a file that cannot be read as the task's, or a generator that does not exist.
    """
    if isinstance(spec, HeldOutTask):
        return None
    return build_choices(spec) if isinstance(spec, ChoiceTask) else _BUILDERS[type(spec)](spec)
