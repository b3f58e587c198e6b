"""Adapters on a base: attached for training, written as a folder, read back, many at once in memory.

    base + MethodSpec -> attach_adapter -> trained -> save_adapter -> folder -> verify_adapter -> AdapterHost
    base + LoraSpecs -> SharedBase: several adapters trained in one forward pass, each on its slice of the tokens
    folder -> load_row_adapter -> RowAdapter in RowSlots: rows of many adapters in one forward pass

Example:
    >>> from pathlib import Path
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    >>> from didact.models.adapter import AdapterHost, attach_adapter, save_adapter, verify_adapter
    >>> from didact.spec import LoraSpec
    >>> base = LlamaForCausalLM(config)
    >>> model = attach_adapter(base, LoraSpec(r=2), seed=0, base_name="tiny")
    >>> Path("adapter").mkdir()
    >>> facts = save_adapter(model, Path("adapter"), base="tiny", base_fingerprint="8f1e", method="lora")
    >>> verify_adapter(Path("adapter"), expected_base="8f1e") == facts
    True
"""

from didact.models.adapter.adapter_files import AdapterFacts, save_adapter, verify_adapter
from didact.models.adapter.attach import attach_adapter
from didact.models.adapter.host import AdapterHost
from didact.models.adapter.row_adapter import RowAdapter
from didact.models.adapter.row_loading import load_row_adapter
from didact.models.adapter.row_slots import RowSlots
from didact.models.adapter.shared_base import OwnRandom, SharedBase, Slice
from didact.models.adapter.start import check_start, start_from

__all__ = [
    "AdapterFacts",
    "AdapterHost",
    "OwnRandom",
    "RowAdapter",
    "RowSlots",
    "SharedBase",
    "Slice",
    "attach_adapter",
    "check_start",
    "load_row_adapter",
    "save_adapter",
    "start_from",
    "verify_adapter",
]
