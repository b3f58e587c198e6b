"""What is twice in the data, what must not be in it, and what it looks like.

    conversations -> Overlap, ContaminationIndex, SourceStatistics
    DataSpec + EvalText -> row_filters -> RowFilters; datasets + RowFilters -> filtered -> datasets

Example:
    >>> from didact.datasets import Conversation, Message
    >>> from didact.datasets.quality import ContaminationIndex, EvalText
    >>> index = ContaminationIndex([EvalText("strategyqa", "7", "Would a pear sink in water?")])
    >>> asked = (Message("user", "Think. Would a pear  sink in Water?"), Message("assistant", "No."))
    >>> [match.item for match in next(index.search([Conversation(asked, row=0)]))]
    ['7']
"""

from didact.datasets.quality.contamination import ContaminationIndex, evaluation_set
from didact.datasets.quality.evaluation_sets import against_texts
from didact.datasets.quality.filters import filtered, row_filters
from didact.datasets.quality.leaks import drop_leaks
from didact.datasets.quality.overlap import Overlap, measure_overlap
from didact.datasets.quality.seen import Seen, SeenIndex, find_seen
from didact.datasets.quality.seen import rules as seen_rules
from didact.datasets.quality.statistics import SourceStatistics, source_statistics
from didact.datasets.quality.types import EvalText, Finding, Kept, Match, RowFilter, Twin

__all__ = [
    "ContaminationIndex",
    "EvalText",
    "Finding",
    "Kept",
    "Match",
    "Overlap",
    "RowFilter",
    "Seen",
    "SeenIndex",
    "SourceStatistics",
    "Twin",
    "against_texts",
    "drop_leaks",
    "evaluation_set",
    "filtered",
    "find_seen",
    "measure_overlap",
    "row_filters",
    "seen_rules",
    "source_statistics",
]
