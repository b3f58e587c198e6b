"""`options` of a source that is files or a hub data set: how they are written, and how rows become text."""

from typing import Any, Literal

from pydantic import Field, ValidationError

from didact.errors import DataError
from didact.spec import SourceSpec, Spec
from didact.spec.explain import complaints

END_MARK = "<|endoftext|>"
"""What ends a text, where a source does not say."""
Container = Literal["lines", "array", "keyed", "object", "delimited", "parquet", "arrow", "text"]
Delimiter = Literal[",", "\t", ";", "|"]
ReasoningMode = Literal["before", "only", "suffix", "mixed"]
TableForm = Literal["markdown", "csv", "html", "key_value"]
Language = Literal["en", "zh"]


class TurnPolicies(Spec):
    """What is done with chats whose turns do not go from user to assistant by turns; `refuse` refuses the row."""

    assistant_first: Literal["leave_out", "refuse"] = "leave_out"
    """A chat begins with the assistant, as with a greeting: that turn is left out."""
    same_side: Literal["join", "refuse"] = "join"
    """Two turns of one side follow each other: one turn of both, a blank line between."""
    system_later: Literal["to_user", "refuse"] = "to_user"
    """A system message stands after the first turn: its text is said by the user at that place."""
    user_last: Literal["leave_out", "refuse"] = "leave_out"
    """A chat ends with the user, or with a tool's result: what nobody answered is left out."""


class RowOptions(Spec):
    """Settings of one source, all of them optional."""

    container: Container | None = None
    """How rows stand in a file: JSON `lines`, a JSON `array`, an object `keyed` by row ids, one `object` a file,
    `delimited` columns, `parquet`, `arrow`, or `text` with an end mark after each. None: told by name and beginning."""
    encoding: str | None = None
    """Text encoding of the files, such as `gb18030`; None for UTF-8. Never guessed."""
    header: bool | None = None
    """Whether the first row of delimited text names its columns. None: yes, except for a `.tsv` whose first row names
    no known form."""
    columns: tuple[str, ...] = ()
    """Names of the columns of delimited text without header."""
    delimiter: Delimiter | None = None
    """Between two columns; None for a tab in `.tsv` files and a comma elsewhere."""
    quotes: bool | None = None
    """Whether columns may stand in double quotes; None for yes, except in `.tsv` files."""
    end_mark: str = Field(default=END_MARK, min_length=1)
    """What ends a text in files that hold one text after the other."""
    parallel: dict[str, str] = Field(default_factory=dict)
    """Field -> file in the folder `path`, where line i of every file belongs to row i."""
    tables: str | None = None
    """Folder or file that holds the tables asked about, absolute or as seen from the question file's folder; None
    where the data set's own layout is kept."""
    reasoning: ReasoningMode = "before"
    """For rows with a rationale: it comes `before` the answer, is left out (`only` the answer), the question asks for
    it (`suffix`), or a seeded mixture of the three (`mixed`)."""
    language: Language | None = None
    """Language of the preambles that are put around questions; None: that of the row."""
    table_form: TableForm = "markdown"
    """How tables are written."""
    max_table_rows: int | None = Field(default=None, ge=1)
    """Longer tables are cut to their first rows, and say so; the header stays. None: never."""
    max_table_columns: int | None = Field(default=None, ge=1)
    """Wider tables are cut to their first columns, and say so. None: never."""
    each: str | None = Field(default=None, min_length=1)
    """The list that holds the rows, in a file that is one object or in each row: `data`, or `result.rows` for one
    inside an object. Other fields of the object stand beside those of each element."""
    turns: TurnPolicies = TurnPolicies()
    """What is done with chats whose turns do not alternate."""
    ignore: tuple[str, ...] = ()
    """Fields of rows or of turns that are passed over as if they were not there."""
    at_least: dict[str, float] = Field(default_factory=dict)
    """Field with a number, such as `rating` -> the least that is learned; rows below are left out and counted."""


def row_options(source: SourceSpec, passed_on: tuple[str, ...] = ()) -> RowOptions:
    """Check a source's options.

    Args:
        source: the source.
        passed_on: names of options that mean something to somebody else.

    Raises:
        DataError: an option that is unknown or has a value that cannot be.
    """
    given: dict[str, Any] = {name: value for name, value in source.options.items() if name not in passed_on}
    try:
        return RowOptions.model_validate(given)
    except ValidationError as error:
        first = complaints(RowOptions, given, error.errors())[0].partition("; known here")[0]
        known = ", ".join(sorted({*RowOptions.model_fields, *passed_on}))
        raise DataError(f"source {source.name!r}: options.{first}; known options: {known}") from None
