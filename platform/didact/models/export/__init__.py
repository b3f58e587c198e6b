"""A trained adapter as a model of its own, for engines that know nothing of adapters.

    base's files -> one layer at a time: PEFT's merge on a hollow model -> shards -> configuration, tokenizer -> proof

Example:
    >>> from pathlib import Path
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(
    ...     vocab_size=49152, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    ... )
    >>> from didact.models import attach_adapter, base_fingerprint, load_tokenizer, save_adapter
    >>> from didact.models.export import merge_adapter
    >>> from didact.spec import LoraSpec, ModelSpec
    >>> LlamaForCausalLM(config).save_pretrained("tiny")
    >>> _ = load_tokenizer(ModelSpec()).save_pretrained("tiny")
    >>> spec = ModelSpec(base="tiny", dtype="float32")
    >>> model = attach_adapter(LlamaForCausalLM.from_pretrained("tiny"), LoraSpec(r=2), seed=0, base_name="tiny")
    >>> Path("adapter").mkdir()
    >>> _ = save_adapter(model, Path("adapter"), base="tiny", base_fingerprint=base_fingerprint(spec), method="lora")
    >>> merge_adapter(spec, Path("adapter"), Path("merged")).merged.top1_agreement
    1.0
"""

from didact.models.export.folder import Manners
from didact.models.export.merge import merge_adapter
from didact.models.export.proof import Distance, MergeProof

__all__ = ["Distance", "Manners", "MergeProof", "merge_adapter"]
