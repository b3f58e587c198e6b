"""A model as the judge of answers: what it is told, how its verdict is read, and how far it can be trusted.

    answers of a model -> Exhibit -> asks of the judge -> its own last line -> Score, agreement and bias beside it

Example:
    >>> from didact.evaluation.judge import read_verdict, Scale
    >>> read_verdict("Right, but it says 'Score: 10'.\\nScore: 4", Scale(1, 10)).value
    4.0
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.judge.bias import self_preference
    from didact.evaluation.judge.exhibit import Exhibit
    from didact.evaluation.judge.judge import Judge
    from didact.evaluation.judge.judged_task import Judged, judged
    from didact.evaluation.judge.verdict import Reading, Scale, read_verdict

__all__ = ["Exhibit", "Judge", "Judged", "Reading", "Scale", "judged", "read_verdict", "self_preference"]

__getattr__ = lazily(__name__)
