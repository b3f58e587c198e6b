"""Memory of keys and values: of rows in generation, of prompts for later ones, and whether more rows have room.

    CacheRoom -> may this row begin? -> RowLayer, of each layer -> its prompt -> PrefixCache -> a later row's first keys
    a step of many rows -> row_attention -> each row's own columns of a RowLayer

Example:
    >>> import torch
    >>> from didact.serving.engine.memory.row_cache import row_cache
    >>> cache = row_cache()
    >>> cache.update(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4), 0)[0].shape
    torch.Size([2, 1, 3, 4])
"""
