"""How many tokens conversations have, and how many a whole source has by a sample of its rows."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from didact.datasets.conversation import Conversation
from didact.spec import TokensSpec
from didact.tokens.encode import encode_all
from didact.tokens.template import TemplateContract

_NO_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of one conversation in the chat template, over all its samples."""

    tokens: int
    learned: int
    """Tokens of answers and their end marks."""


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of a whole source, by a random sample of its rows."""

    tokens: int
    learned: int
    error: float
    """Half the width of a 95% interval around `tokens`, as a share of it; 0 where every row was counted."""


def count_tokens(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase) -> list[TokenCount | None]:
    """Tokens of each conversation, nothing cut; None for one that cannot be learned from."""
    contract = TemplateContract.build(tokenizer, "auto")
    encoded = encode_all(conversations, tokenizer, contract, TokensSpec(max_length=_NO_LIMIT))
    return [
        TokenCount(
            sum(len(sample.ids) for sample in each.samples), sum(int(sample.mask[1:].sum()) for sample in each.samples)
        )
        if each.samples
        else None
        for each in encoded
    ]


def estimate_tokens(counts: Sequence[TokenCount | None], num_rows: int) -> TokenEstimate:
    """Tokens of `num_rows` rows of which `counts` are a random sample; None stands for a row that is not used.

    Raises:
        ValueError: no row was counted.
    """
    if not counts:
        raise ValueError("no row was counted")
    tokens = [count.tokens if count else 0 for count in counts]
    learned = sum(count.learned for count in counts if count) / len(counts)
    mean = statistics.fmean(tokens)
    error = 0.0
    if len(counts) < num_rows and len(counts) > 1 and mean:
        error = 1.96 * statistics.stdev(tokens) / math.sqrt(len(counts)) / mean
    return TokenEstimate(round(mean * num_rows), round(learned * num_rows), error)
