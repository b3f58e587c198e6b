"""What was computed once and is read many times: folders filled part by part, opened whole or not at all.

    digest of all that decides the content -> CacheEntry -> fill -> parts with sizes and digests -> sound_shard

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from didact.cache import CacheEntry, PartRecord, list_cache, new_file, shard_of
    >>> root = Path(tempfile.mkdtemp())
    >>> entry = CacheEntry(root / "tokens" / "2f61")
    >>> def make(missing):
    ...     for key in missing:
    ...         with new_file(entry.folder / key) as beside:
    ...             _ = beside.write_text("three rows")
    ...         entry.add(PartRecord(key, (shard_of(entry.folder / key, rows=3),), {"samples": 3}))
    >>> entry.fill(["first", "second"], {"source": "sums"}, make)
    >>> [(each.kind, each.source, each.rows) for each in list_cache(root)]
    [('tokens', 'sums', 6)]
"""

from didact.cache.columns import SHARD_ROWS, GrowingArray, read_one_batch, within, write_one_batch
from didact.cache.entry import CacheEntry, PartRecord, Shard, new_file, shard_of
from didact.cache.pruning import KINDS, CachedEntry, is_older, list_cache, prune

__all__ = [
    "KINDS",
    "SHARD_ROWS",
    "CacheEntry",
    "CachedEntry",
    "GrowingArray",
    "PartRecord",
    "Shard",
    "is_older",
    "list_cache",
    "new_file",
    "prune",
    "read_one_batch",
    "shard_of",
    "within",
    "write_one_batch",
]
