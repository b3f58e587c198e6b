"""A part of a source -> batches of accepted conversations and refused rows, never more than a batch in memory.

A part is a small value that can be sent to any node that sees the source, and is read there on its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from didact.datasets.conversation import Conversation, RowPlace
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.field_mapping import FieldMapping, map_rows
from didact.datasets.forms.table_files import TABLE_FILES, join_tables
from didact.datasets.forms.table_of_forms import Noted, to_conversation
from didact.datasets.places.digests import Content, unchanged
from didact.datasets.readers.reading import Layout, Piece, read
from didact.datasets.rows.quarantine import Reject, reject
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.spec.data import Form

BATCH_ROWS = 1024
_BATCH_CHARACTERS = 1 << 22


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a source that follow each other."""

    key: str
    """Name within the source; parts in the order of their keys are in the order of the source. Pieces of one file, or
    of one numbered source, name their size, so that pieces of another size are not taken for them."""
    places: tuple[str, ...]
    """The files that its rows stand in, or the path of a source that is not a file, as the quarantine names them."""
    form: Form
    """How its rows are written."""
    reads: "tuple[partial[Iterator[RawRow]], ...]"
    """Read those of each place."""
    mapping: FieldMapping | None = None
    """Step before the form is read."""
    size: int = 0
    """Bytes that are read, as far as that is known: how much work it is beside others."""
    contents: tuple[Content, ...] = ()
    """What the source's identity says that the files hold, tables beside them included."""

    def rows(self) -> Iterator[RawRow]:
        """The raw rows, brought into the shape of their form."""
        rows = chain.from_iterable(read() for read in self.reads)
        return map_rows(self.mapping, rows) if self.mapping else rows


def file_rows(layout: Layout, piece: Piece | None = None) -> Iterator[RawRow]:
    """The raw rows of a file or of a piece of it; questions with the tables that lie beside them."""
    rows = read(layout, piece)
    return join_tables(layout.form, layout.path, layout.tables, rows) if layout.form in TABLE_FILES else rows


@dataclass(slots=True)
class ConversationBatch:
    """Some rows that follow each other."""

    accepted: list[Conversation] = field(default_factory=list)
    """`row` counts from 0 at the beginning of the part."""
    rejects: list[Reject] = field(default_factory=list)
    noted: Noted = field(default_factory=Noted)
    """What was seen in the accepted rows."""

    @property
    def num_rows(self) -> int:
        """Rows read."""
        return len(self.accepted) + len(self.rejects)


def convert(part: Part, settings: RowSettings) -> Iterator[ConversationBatch]:
    """Read, check and convert a part.

    Args:
        part: the part.
        settings: what decides the words of its conversations.

    Raises:
        DataError: a file is damaged, or does not hold what the source's identity says.
    """
    with unchanged(part.contents):
        yield from convert_rows(((part.form, raw) for raw in part.rows()), settings, part.places)


def convert_rows(
    rows: Iterator[tuple[Form, RawRow]], settings: RowSettings, places: Sequence[str] = ()
) -> Iterator[ConversationBatch]:
    """Check and convert raw rows, counted from 0; of each the number of its file in `places` is kept."""
    numbers = {place: number for number, place in enumerate(places)}
    batch, characters = ConversationBatch(), 0
    for index, (form, raw) in enumerate(rows):
        try:
            conversation = to_conversation(form, raw, index, settings, batch.noted)
            place = RowPlace(numbers.get(raw.file, 0), raw.line, raw.byte_offset)
            batch.accepted.append(replace(conversation, place=place))
            characters += sum(len(message.written) for message in conversation.messages)
        except BadRow as bad:
            batch.rejects.append(reject(raw, bad, numbers.get(raw.file, 0)))
        if batch.num_rows >= BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = ConversationBatch(), 0
    if batch.num_rows:
        yield batch
