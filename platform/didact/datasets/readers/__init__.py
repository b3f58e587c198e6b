"""Bytes of a file as raw rows, one in memory at a time; a bad row costs that row only, a file that is cut is refused.

    Layout (container, encoding, columns, as `sources` found them) -> read -> RawRows

Readers know lines, brackets and columns, nothing of what a row means, and decide nothing about a file.

Example:
    >>> from pathlib import Path
    >>> from didact.datasets.readers import Layout, read
    >>> path = Path("sums.jsonl")
    >>> _ = path.write_text('{"instruction": "Add 2 and 3.", "output": "5"}\\n{"instruction": }\\n')
    >>> [row.line for row in read(Layout(path, "sums.jsonl", "lines"))]
    [1, 2]
"""

from didact.datasets.readers.reading import Layout, read

__all__ = ["Layout", "read"]
