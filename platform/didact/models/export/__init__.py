"""A trained adapter as a model of its own, for engines that know nothing of adapters.

    base's files -> one layer at a time: PEFT's merge on a hollow model -> shards -> configuration, tokenizer -> proof

Example:
    >>> from didact.models.export import merge_adapter
    >>> proof = merge_adapter(ModelSpec(), Path("runs/demo/adapter"), Path("merged"))  # doctest: +SKIP
    >>> print(proof.merged)  # doctest: +SKIP
"""

from didact.models.export.folder import Manners
from didact.models.export.merge import merge_adapter
from didact.models.export.proof import Distance, MergeProof

__all__ = ["Distance", "Manners", "MergeProof", "merge_adapter"]
