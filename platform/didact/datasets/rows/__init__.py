"""A raw row on its way in, what may be wrong with it, and the options that say how it is written.

    bytes -> decode_text, parse_json -> RawRow (or BadRow with a Reason) -> fields -> quarantine of the refused

Example:
    >>> from didact.datasets.rows import BadRow
    >>> BadRow("missing_field", "no `output`").reason
    'missing_field'
"""

from didact.datasets.rows.decoding import decode_json, decode_text
from didact.datasets.rows.options import RowOptions, row_options
from didact.datasets.rows.quarantine import Reject, check_share, reject, write_quarantine
from didact.datasets.rows.raw_row import MAX_RECORD_BYTES, BadRow, RawRow, Reason

__all__ = [
    "MAX_RECORD_BYTES",
    "BadRow",
    "RawRow",
    "Reason",
    "Reject",
    "RowOptions",
    "check_share",
    "decode_json",
    "decode_text",
    "reject",
    "row_options",
    "write_quarantine",
]
