"""Adapters on a base: attached for training, written as a folder, read back, many at once in memory.

    base + MethodSpec -> attach_adapter -> trained -> save_adapter -> folder -> verify_adapter -> AdapterHost

Example:
    >>> from didact.models.adapter import verify_adapter
    >>> verify_adapter(Path("runs/demo/adapter")).method  # doctest: +SKIP
    'lora'
"""

from didact.models.adapter.adapter_files import AdapterFacts, save_adapter, verify_adapter
from didact.models.adapter.attach import attach_adapter
from didact.models.adapter.host import AdapterHost

__all__ = ["AdapterFacts", "AdapterHost", "attach_adapter", "save_adapter", "verify_adapter"]
