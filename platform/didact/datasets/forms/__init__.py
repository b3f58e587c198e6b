"""What a row means: the published forms of instruction data, each turned into messages.

    RawRow -> FieldMapping -> recognise -> Form -> Draft -> (tables, rationales, several turns) -> Conversation

Example:
    >>> from didact.datasets.forms import recognise, to_conversation
    >>> from didact.datasets.rows import RawRow
    >>> record = {"instruction": "Add 2 and 3.", "input": "", "output": "5"}
    >>> form = recognise(record)
    >>> form, to_conversation(form, RawRow("sums.jsonl", 1, None, record), row=0).messages[-1].content
    ('alpaca', '5')
"""

from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.field_mapping import FieldMapping, map_rows
from didact.datasets.forms.table_of_forms import recognise, to_conversation
from didact.spec.data import Form

__all__ = ["FieldMapping", "Form", "RowSettings", "map_rows", "recognise", "to_conversation"]
