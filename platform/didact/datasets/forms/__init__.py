"""What a row means: the published forms of instruction data, each turned into messages.

    RawRow -> FieldMapping -> recognise -> Form -> Draft -> (tables, rationales, several turns) -> Conversation

Example:
    >>> from didact.datasets.forms import recognise
    >>> recognise([{"instruction": "Add 2 and 3.", "output": "5"}]).name  # doctest: +SKIP
    'alpaca'
"""

from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.field_mapping import FieldMapping, map_rows
from didact.datasets.forms.table_of_forms import Form, recognise, to_conversation

__all__ = ["FieldMapping", "Form", "RowSettings", "map_rows", "recognise", "to_conversation"]
