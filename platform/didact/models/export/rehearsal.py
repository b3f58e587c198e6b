"""An adapter put onto its base as serving does it, without the base's weights: whether the two fit."""

from pathlib import Path

from transformers import AutoConfig

from didact.models.adapter.adapter_files import AdapterFacts, verify_adapter
from didact.models.adapter.host import AdapterHost
from didact.models.base.description import base_description
from didact.models.export.hollow import hollow_model
from didact.spec import ModelSpec


def rehearse(folder: Path, base: ModelSpec) -> AdapterFacts:
    """Check an adapter's every byte and value, and that each of its tensors has a place of its shape on the base.

    Args:
        folder: as `save_adapter` writes it.
        base: its configuration is read, its weights are not.

    Raises:
        AdapterError: see `verify_adapter` and `AdapterHost.load`.
        ModelError: the base is not found.
    """
    facts = verify_adapter(folder)
    if not facts.bound:  # that needs the quantized base itself
        config = AutoConfig.from_pretrained(base_description(base), trust_remote_code=base.trust_remote_code)
        host = AdapterHost(hollow_model(config, trust_remote_code=base.trust_remote_code), facts.base_fingerprint)
        host.load("rehearsal", folder)
    return facts
