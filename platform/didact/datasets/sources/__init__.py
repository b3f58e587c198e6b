"""A source opened and cut into parts that are read and converted apart, on any machine.

    SourceSpec -> open_source (inspect each file: Layout) -> OpenedSource: Parts -> convert -> batches of Conversations

Example:
    >>> from didact.datasets.sources import open_source
    >>> from didact.spec import SourceSpec
    >>> len(open_source(SourceSpec(name="sums", path="reasoning-gym:chain_sum", max_rows=10)).parts)
    1
"""

from didact.datasets.sources.conversion import ConversationBatch, Part, convert
from didact.datasets.sources.inspection import inspect
from didact.datasets.sources.opening import OpenedSource, open_source

__all__ = ["ConversationBatch", "OpenedSource", "Part", "convert", "inspect", "open_source"]
