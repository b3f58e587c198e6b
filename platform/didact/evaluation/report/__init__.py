"""What an evaluation found: figures with their intervals, comparisons, what training had seen, and how it reads.

    models + TaskResults -> combine -> EvalReport -> Figures, Comparisons, Contamination -> table, Markdown, JSON

Example:
    >>> from didact.evaluation.report import EvalReport, ModelFacts
    >>> counts, figures = {"eval/sums/accuracy": 100}, {"base": {"eval/sums/accuracy": 0.25}}
    >>> report = EvalReport({"base": ModelFacts("smollm2")}, figures, counts)
    >>> [(each.metric, each.written("base")) for each in report.figures]
    [('eval/sums/accuracy', '25.0% [18-34]')]
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.report.comparisons import Comparison, compare_task
    from didact.evaluation.report.contamination import Contamination, unseen
    from didact.evaluation.report.facts import (
        ADAPTER,
        BASE,
        Given,
        ModelFacts,
        QuestionFacts,
        Searched,
        TaskFacts,
    )
    from didact.evaluation.report.figures import Change, Figure, Point
    from didact.evaluation.report.report import EvalReport
    from didact.evaluation.report.side_by_side import combine, with_files

__all__ = [
    "ADAPTER",
    "BASE",
    "Change",
    "Comparison",
    "Contamination",
    "EvalReport",
    "Figure",
    "Given",
    "ModelFacts",
    "Point",
    "QuestionFacts",
    "Searched",
    "TaskFacts",
    "combine",
    "compare_task",
    "unseen",
    "with_files",
]

__getattr__ = lazily(__name__)
