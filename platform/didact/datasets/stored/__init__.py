"""Conversations on disk: written once a part, read by position, chosen from by their keys alone.

    ConversionJob -> Batches -> ConversationWriter -> CacheEntry -> StoredConversations -> select -> ConversationView

Example:
    >>> from pathlib import Path
    >>> from didact.cache import CacheEntry
    >>> from didact.datasets import Conversation, Message
    >>> from didact.datasets.sources import ConversationBatch
    >>> from didact.datasets.stored import ConversationWriter, StoredConversations
    >>> entry = CacheEntry(Path("cache/conversations/5c0e"))
    >>> asked = Conversation((Message("user", "Add 2 and 3."), Message("assistant", "5")), row=0)
    >>> with ConversationWriter(entry, "first") as writer:
    ...     _ = writer.add(ConversationBatch([asked]))
    >>> entry.finish(["first"], {"source": "sums"})
    >>> StoredConversations(entry)[0] == asked
    True
"""

from didact.datasets.stored.choice import Selection, select
from didact.datasets.stored.fill import ConversionJob, Converter, convert_here
from didact.datasets.stored.reader import Keys, StoredConversations
from didact.datasets.stored.view import ConversationView
from didact.datasets.stored.writer import KEY, ConversationWriter

__all__ = [
    "KEY",
    "ConversationView",
    "ConversationWriter",
    "ConversionJob",
    "Converter",
    "Keys",
    "Selection",
    "StoredConversations",
    "convert_here",
    "select",
]
