"""Bytes of a file as raw rows, one in memory at a time; a damaged row costs that row only.

    SourceFile -> container_of (lines, array, keyed, object, delimited, parquet, arrow, text) -> file_rows -> RawRows

Example:
    >>> from pathlib import Path
    >>> from didact.datasets.readers import container_of, file_rows
    >>> from didact.datasets.rows import RowOptions
    >>> path = Path("sums.jsonl")
    >>> _ = path.write_text('{"instruction": "Add 2 and 3.", "output": "5"}\\n{"instruction": "Add')
    >>> container_of(path, RowOptions())
    'lines'
    >>> [row.line for row in file_rows("alpaca", path, RowOptions())]
    [1, 2]
"""

from didact.datasets.readers.reading import container_of, file_rows

__all__ = ["container_of", "file_rows"]
