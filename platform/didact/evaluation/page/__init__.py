"""An evaluation on one HTML page: figures with intervals, classes, lengths, and every answer beside the others.

    EvalReport -> render_evaluation -> one HTML file without anything beside it

Example:
    >>> from didact.evaluation import EvalReport, ModelFacts
    >>> from didact.evaluation.page import render_evaluation
    >>> report = EvalReport({"base": ModelFacts("SmolLM2")}, {"base": {"eval/loss": 1.5}}, {"eval/loss": 8})
    >>> "1.5000" in render_evaluation(report)
    True
"""

from didact.evaluation.page.page import render_evaluation

__all__ = ["render_evaluation"]
