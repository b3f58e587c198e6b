"""Turns of a conversation on their way through lm-eval, which hands prompts on as if they were text."""

import json
from dataclasses import dataclass
from typing import Any

from didact.datasets.conversation import Message


@dataclass(frozen=True, slots=True)
class Chat:
    """Turns as JSON text. No string, so that nothing can take it for a prompt's text or change it unseen.

    The model renders them by its template contract: text inside a turn never becomes a special token.
    """

    turns: str

    @classmethod
    def of(cls, history: list[dict[str, Any]], add_generation_prompt: bool = True) -> "Chat":
        """What lm-eval calls as a chat template.

        Args:
            history: turns as `role` and `content`; the last one may begin the answer.
            add_generation_prompt: as lm-eval passes it; whether the answer is begun shows in the last turn.
        """
        return cls(json.dumps(history, ensure_ascii=False))

    def encode(self, encoding: str) -> bytes:
        """As a string's, for lm-eval's digests."""
        return self.turns.encode(encoding)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns before the answer."""
        history = json.loads(self.turns)
        asked = history[:-1] if history[-1]["role"] == "assistant" else history
        return tuple(Message(turn["role"], turn["content"]) for turn in asked)

    @property
    def opening(self) -> str:
        """Text that the answer begins with."""
        last = json.loads(self.turns)[-1]
        return last["content"] if last["role"] == "assistant" else ""
