"""Several runs trained together on one base: what each learns is what it would learn alone.

    base + FusedTrials.join(FusedTrial) ... -> step, step, ... -> checkpoints and reports of each; leave at any step

Example:
    >>> from pathlib import Path
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from didact.models import load_tokenizer
    >>> from didact.preparation import prepare_data
    >>> from didact.spec import FinetuneSpec, ModelSpec, validate
    >>> from didact.training import CheckpointStore
    >>> from didact.training.fused import FusedTrial, FusedTrials
    >>> config = LlamaConfig(
    ...     vocab_size=49152, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    ... )
    >>> LlamaForCausalLM(config).save_pretrained("tiny")
    >>> _ = load_tokenizer(ModelSpec()).save_pretrained("tiny")
    >>> sums = {"name": "sums", "path": "reasoning-gym:chain_sum", "max_rows": 40}
    >>> recipe = {"name": "sums", "model": {"base": "tiny"}, "data": {"sources": [sums]}, "training": {"steps": 2}}
    >>> recipe["placement"] = {"num_workers": 1}
    >>> spec = validate(FinetuneSpec, recipe, "example")
    >>> group, prepared = FusedTrials.on(spec, torch.device("cpu")), prepare_data(spec)
    >>> for rank in (4, 8):
    ...     one = validate(FinetuneSpec, {**recipe, "name": f"rank-{rank}", "adapter": {"r": rank}}, "example")
    ...     checkpoints = CheckpointStore(Path(one.name), keep=2, identity=one.name)
    ...     group.join(FusedTrial(one.name, one, prepared.loader(one), prepared.num_steps, checkpoints))
    >>> {name: result.steps for name, result in group.run().items()}
    {'rank-4': 2, 'rank-8': 2}
"""

from didact.training.fused.group import FusedTrial, FusedTrials

__all__ = ["FusedTrial", "FusedTrials"]
