"""Tokens over HTTP, under vLLM's names: `/tokenize`, `/detokenize`, `/tokenizer_info`.

Clients count and cut prompts with them, and evaluation harnesses tokenize as the served model does.
"""

from typing import Any

from pydantic import Field

from didact.serving.api.chat_types import Body, ChatMessage, turns_of
from didact.serving.api.openai_types import TokenIds
from didact.serving.replica.backend import Prompt, Spelled, TokenizerFacts

_NAME = "a model's name, at most 512 characters; left out, the base"
_MOST_TOKENS = 1_000_000


class TokenizeRequest(Body):
    """POST /tokenize: a prompt, or the messages of a chat."""

    model: str | None = Field(default=None, min_length=1, max_length=512, description=_NAME)
    prompt: str | None = Field(default=None, description="text; or messages in its place")
    messages: list[ChatMessage] | None = Field(
        default=None, min_length=1, description="a list of messages, at least one, each with role and content"
    )
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = None

    @property
    def asked(self) -> Prompt | None:
        """What to tokenize; None where it is not one of the two."""
        if (self.prompt is None) == (self.messages is None):
            return None
        return self.prompt if self.prompt is not None else turns_of(self.messages or ())


class DetokenizeRequest(Body):
    """POST /detokenize."""

    model: str | None = Field(default=None, min_length=1, max_length=512, description=_NAME)
    tokens: TokenIds = Field(max_length=_MOST_TOKENS, description="a list of token ids, at least one")


def tokenized(spelled: Spelled, max_model_len: int, with_texts: bool) -> dict[str, Any]:
    """The answer of /tokenize."""
    return {
        "count": len(spelled.ids),
        "max_model_len": max_model_len,
        "tokens": list(spelled.ids),
        "token_strs": list(spelled.tokens) if with_texts else None,
    }


def tokenizer_info(facts: TokenizerFacts, max_model_len: int) -> dict[str, Any]:
    """The answer of /tokenizer_info: as in a model's `tokenizer_config.json`."""
    return {
        "tokenizer_class": facts.kind,
        **facts.special,
        "chat_template": facts.chat_template,
        "vocab_size": facts.vocabulary_size,
        "model_max_length": max_model_len,
    }
