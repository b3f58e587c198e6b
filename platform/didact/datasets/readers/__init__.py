"""Bytes of a file as raw rows, one in memory at a time; a damaged row costs that row only.

    SourceFile -> container_of (lines, array, keyed, object, delimited, parquet, arrow, text) -> file_rows -> RawRows

Example:
    >>> from didact.datasets.readers import file_rows
    >>> [row.record for row in file_rows(path, options)]  # doctest: +SKIP
"""

from didact.datasets.readers.reading import container_of, file_rows

__all__ = ["container_of", "file_rows"]
