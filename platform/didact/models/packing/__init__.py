"""Several samples in one row, each seeing only itself.

    model -> supports_packing -> use_packed_attention -> lengths of samples -> plan -> kernel

Example:
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    >>> from didact.models.packing import supports_packing
    >>> supports_packing(LlamaForCausalLM(config))
    True
"""

from didact.models.packing.gpu_attention import row_bounds
from didact.models.packing.packed_attention import packed_attention_inside, use_packed_attention
from didact.models.packing.support import shares_prefixes, supports_packing

__all__ = ["packed_attention_inside", "row_bounds", "shares_prefixes", "supports_packing", "use_packed_attention"]
