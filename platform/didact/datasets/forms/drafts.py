"""What a record is read into before it becomes a conversation, and the settings that decide its words."""

from collections.abc import Callable
from dataclasses import dataclass, field

from didact.datasets.conversation import Message
from didact.datasets.forms.language import has_words, language_of
from didact.datasets.forms.rationales import Reasoned
from didact.datasets.forms.table_text import TableLayout
from didact.datasets.rows.fields import Record
from didact.datasets.rows.options import Language, RowOptions


@dataclass(frozen=True, slots=True)
class Draft:
    """Turns that are said as they stand in the record."""

    messages: list[Message]
    answer: str | None = None
    """The short checkable answer, where the record has one."""
    rationale: str | None = None
    """The reasoning that leads to the answer, where the turns hold it already."""


@dataclass(frozen=True, slots=True)
class RowSettings:
    """What is the same for all rows of a source."""

    options: RowOptions = field(default_factory=RowOptions)
    seed: int = 0
    """`data.seed`: which reasoning template a row gets."""
    any_form: bool = False
    """Whether a row that does not fit the source's form may be of another one, which its own fields tell."""

    def language(self, text: str, otherwise: str = "") -> Language:
        """Language of what is said around `text`, told from another one where `text` has no words."""
        return self.options.language or language_of(text if has_words(text) else otherwise)

    def table_layout(self, text: str) -> TableLayout:
        """How a table is written beside `text`."""
        options = self.options
        return TableLayout(options.table_form, self.language(text), options.max_table_rows, options.max_table_columns)


Convert = Callable[[Record, RowSettings], Draft | Reasoned]
"""Reads one record; raises `BadRow` for one that cannot be used."""


def pair(question: str, reply: str, answer: str | None = None) -> Draft:
    """One user and one assistant turn."""
    return Draft([Message("user", question), Message("assistant", reply)], answer)
