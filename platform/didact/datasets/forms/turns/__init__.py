"""Who said what: turns of chats and transcripts as people write them, put in the one order that all data takes.

    list of turns, JSON text of one, transcript -> messages -> in_order -> user, assistant, user, ...

Example:
    >>> from collections import Counter
    >>> from didact.datasets.forms.turns import chat_turns, in_order
    >>> from didact.datasets.rows.options import TurnPolicies
    >>> turns = [{"from": "GPT", "value": "Welcome."}, {"human": "Hi", "assistant": "Hello"}]
    >>> done = Counter()
    >>> messages = in_order(chat_turns({"conversations": turns}, "conversations"), TurnPolicies(), done)
    >>> [message.content for message in messages], dict(done)
    (['Hi', 'Hello'], {'assistant_first: leave_out': 1})
"""

from didact.datasets.forms.turns.order import in_order
from didact.datasets.forms.turns.prompt import prompt_turns
from didact.datasets.forms.turns.reading import (
    CHAT_FIELDS,
    CHATS,
    ROLES,
    TURN_FIELDS,
    UNUSABLE,
    about,
    chat_turns,
    refuse_unusable,
    said,
    unread_of_turn,
)

__all__ = [
    "CHATS",
    "CHAT_FIELDS",
    "ROLES",
    "TURN_FIELDS",
    "UNUSABLE",
    "about",
    "chat_turns",
    "in_order",
    "prompt_turns",
    "refuse_unusable",
    "said",
    "unread_of_turn",
]
