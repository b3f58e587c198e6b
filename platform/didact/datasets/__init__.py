"""Instruction data of any source, brought to one form and checked row by row.

    SourceSpec -> raw rows -> (quarantine of bad rows) -> Conversation -> Dataset (train, held out, fingerprint)

The catalog of known data sets is `didact.datasets.catalog`; a source names one of them as `card:NAME`.

Example:
    >>> from didact.datasets import load_dataset
    >>> from didact.spec import SourceSpec
    >>> source = SourceSpec(name="sums", path="reasoning-gym:chain_sum", max_rows=100, held_out_rows=10)
    >>> dataset = load_dataset(source, seed=0, max_bad_rows_share=0.0, quarantine_dir=None)
    >>> len(dataset.held_out), dataset.rows_read, dataset.rows_rejected
    (10, 100, 0)
"""

from didact.datasets.added import AddedCard, add_card
from didact.datasets.conversation import Conversation, Message, Role
from didact.datasets.dataset import AllRows, Dataset
from didact.datasets.load import load_dataset
from didact.datasets.places.generated import open_generator
from didact.datasets.places.hub import open_hub
from didact.datasets.rows.raw_row import MAX_RECORD_BYTES, Reason
from didact.datasets.samples import RowSample, Samples, card_samples, random_rows

__all__ = [
    "MAX_RECORD_BYTES",
    "AddedCard",
    "AllRows",
    "Conversation",
    "Dataset",
    "Message",
    "Reason",
    "Role",
    "RowSample",
    "Samples",
    "add_card",
    "card_samples",
    "load_dataset",
    "open_generator",
    "open_hub",
    "random_rows",
]
