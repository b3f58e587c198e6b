"""Figures that a paper printed, as data, and a study's own beside them.

    paper.yaml -> Paper -> inconsistencies; StudyResult + Paper -> Beside: both figures, averages read in both ways

Example:
    >>> from didact.studies.published import inconsistencies, published_paper
    >>> [(each.table, each.row, each.printed) for each in inconsistencies(published_paper())]
    [('figure 1', 'bloomz-mt', -11.15)]
"""

from didact.studies.published.beside import Beside, Pair, beside
from didact.studies.published.paper import (
    Inconsistency,
    Paper,
    PublishedTable,
    averages,
    inconsistencies,
    published_paper,
)

__all__ = [
    "Beside",
    "Inconsistency",
    "Pair",
    "Paper",
    "PublishedTable",
    "averages",
    "beside",
    "inconsistencies",
    "published_paper",
]
