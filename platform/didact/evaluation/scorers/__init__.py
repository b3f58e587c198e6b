"""When a text counts as an answer, and what it is worth; each scorer has a name and a version.

    ScorerSpec -> build_scorer -> NamedScorer: (Question, text) -> Score

Example:
    >>> from didact.datasets.conversation import Message
    >>> from didact.evaluation.questions import Question
    >>> from didact.evaluation.scorers import build_scorer
    >>> question = Question("1", (Message("user", "Which city is the capital of France?"),), "Paris")
    >>> build_scorer("exact").score(question, "PARIS.").values
    {'accuracy': 1.0, 'unread': 0.0}
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.scorers.numbers import is_number, last_number, numbers_equal
    from didact.evaluation.scorers.scorer import NamedScorer, Scorer, accepted
    from didact.evaluation.scorers.table import build_scorer

__all__ = [
    "NamedScorer",
    "Scorer",
    "accepted",
    "build_scorer",
    "is_number",
    "last_number",
    "numbers_equal",
]

__getattr__ = lazily(__name__)
