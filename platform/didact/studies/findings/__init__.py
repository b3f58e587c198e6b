"""What a study's figures say: effects of levels, lines over amounts, what each dataset brings, what to train next.

    StudyResult -> Effect, Scaling, Share, Transfer -> Proposal

Example:
    >>> from didact.studies.findings import amount_of
    >>> [amount_of(level) for level in ("320", "r16", "1.5k", "7B", "lora")]
    [320.0, 16.0, 1500.0, 7000000000.0, None]
"""

from didact.studies.contrasts import Contrast
from didact.studies.findings.effects import Effect, effects_of
from didact.studies.findings.next_cells import Proposal, proposals_of
from didact.studies.findings.scaling import Scaling, amount_of, scalings_of
from didact.studies.findings.shares import Share, Transfer, shares_of, transfers_of

__all__ = [
    "Contrast",
    "Effect",
    "Proposal",
    "Scaling",
    "Share",
    "Transfer",
    "amount_of",
    "effects_of",
    "proposals_of",
    "scalings_of",
    "shares_of",
    "transfers_of",
]
