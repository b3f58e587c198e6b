"""Several samples in one row, each seeing only itself.

    model -> supports_packing -> use_packed_attention -> lengths of samples -> plan -> kernel

Example:
    >>> from didact.models.packing import supports_packing
    >>> supports_packing(model)  # doctest: +SKIP
    True
"""

from didact.models.packing.packed_attention import use_packed_attention
from didact.models.packing.support import supports_packing

__all__ = ["supports_packing", "use_packed_attention"]
