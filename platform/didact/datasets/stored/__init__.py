"""Conversations on disk: written once a part, read by position, chosen from by their keys alone.

    batches of Conversations -> ConversationWriter -> CacheEntry -> StoredConversations -> select -> positions

Example:
    >>> from didact.datasets.stored import StoredConversations
    >>> StoredConversations(entry)[0].messages  # doctest: +SKIP
"""

from didact.datasets.stored.choice import Selection, select
from didact.datasets.stored.reader import Keys, StoredConversations
from didact.datasets.stored.writer import KEY, ConversationWriter

__all__ = ["KEY", "ConversationWriter", "Keys", "Selection", "StoredConversations", "select"]
