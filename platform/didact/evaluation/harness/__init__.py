"""Benchmarks of EleutherAI's lm-evaluation-harness, asked by whatever model is evaluated.

    LmEvalTask -> build_lm_eval -> HarnessTask: lm-eval's requests as asks, its scores for what came back
    DidactLM: the other way round, one of our models as lm-eval's own `simple_evaluate` takes them

lm-eval is an extra (`didact[lm-eval]`). Its response caches stay off: they do not know which model answered.

Example:
    >>> from didact.evaluation.harness import missing_extra
    >>> missing_extra("no_such_package")
    'no_such_package is not installed; pip install "didact[lm-eval]" brings it'
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.harness.extra import missing_extra, require_lm_eval
    from didact.evaluation.harness.load import build_lm_eval
    from didact.evaluation.harness.model import DidactLM
    from didact.evaluation.harness.task import HarnessTask

__all__ = ["DidactLM", "HarnessTask", "build_lm_eval", "missing_extra", "require_lm_eval"]

__getattr__ = lazily(__name__)
