"""A part of a source -> batches of accepted conversations and refused rows, never more than a batch in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from didact.datasets.conversation import Conversation
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.table_of_forms import to_conversation
from didact.datasets.rows.quarantine import Reject, reject
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.datasets.sources.parts import Part
from didact.spec.data import Form

BATCH_ROWS = 1024
_BATCH_CHARACTERS = 1 << 22


@dataclass(slots=True)
class Batch:
    """Some rows that follow each other."""

    accepted: list[Conversation] = field(default_factory=list)
    """`row` counts from 0 at the beginning of the part."""
    rejects: list[Reject] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        """Rows read."""
        return len(self.accepted) + len(self.rejects)


def convert(part: Part, settings: RowSettings) -> Iterator[Batch]:
    """Read, check and convert a part.

    Args:
        part: the part.
        settings: what decides the words of its conversations.
    """
    return convert_rows(((part.form, raw) for raw in part.rows()), settings, part.places)


def convert_rows(
    rows: Iterator[tuple[Form, RawRow]], settings: RowSettings, places: Sequence[str] = ()
) -> Iterator[Batch]:
    """Check and convert raw rows, counted from 0; of the refused ones the number of their file in `places` is kept."""
    numbers = {place: number for number, place in enumerate(places)}
    batch, characters = Batch(), 0
    for index, (form, raw) in enumerate(rows):
        try:
            conversation = to_conversation(form, raw, index, settings)
            batch.accepted.append(conversation)
            characters += sum(len(message.content) for message in conversation.messages)
        except BadRow as bad:
            batch.rejects.append(reject(raw, bad, numbers.get(raw.file, 0)))
        if batch.num_rows >= BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = Batch(), 0
    if batch.num_rows:
        yield batch
