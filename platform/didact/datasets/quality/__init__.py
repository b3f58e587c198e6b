"""What is twice in the data, what must not be in it, and what it looks like.

    conversations -> Overlap, ContaminationIndex, SourceStatistics; datasets + DataSpec + EvalText -> RowFilter

Example:
    >>> from didact.datasets import Conversation, Message
    >>> from didact.datasets.quality import ContaminationIndex, EvalText
    >>> index = ContaminationIndex([EvalText("strategyqa", "7", "Would a pear sink in water?")])
    >>> asked = (Message("user", "Think. Would a pear  sink in Water?"), Message("assistant", "No."))
    >>> [match.item for match in next(index.search([Conversation(asked, row=0)]))]
    ['7']
"""

from didact.datasets.quality.contamination import ContaminationIndex
from didact.datasets.quality.evaluation_sets import against_texts
from didact.datasets.quality.filters import row_filters
from didact.datasets.quality.overlap import Overlap, measure_overlap
from didact.datasets.quality.rows import AllRows
from didact.datasets.quality.statistics import SourceStatistics, source_statistics
from didact.datasets.quality.types import EvalText, Finding, Match, RowFilter, Twin

__all__ = [
    "AllRows",
    "ContaminationIndex",
    "EvalText",
    "Finding",
    "Match",
    "Overlap",
    "RowFilter",
    "SourceStatistics",
    "Twin",
    "against_texts",
    "measure_overlap",
    "row_filters",
    "source_statistics",
]
