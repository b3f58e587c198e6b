"""Which runs can be trained together on one base, told from their recipes alone."""

from collections.abc import Sequence

from didact.spec.adapter import LoraSpec
from didact.spec.finetune import FinetuneSpec

_SHARED = ("model", "tokens.max_length", "training.gradient_checkpointing", "placement")
"""What runs on one base have in common, as dotted paths."""


def why_not_fused(spec: FinetuneSpec) -> tuple[str, ...]:
    """What keeps a run from being trained together with others, one line a field: `field: what, why and what to do`."""
    adapter, training, quantization = spec.adapter, spec.training, spec.model.quantization
    reasons: list[str] = []
    if not isinstance(adapter, LoraSpec):
        method = adapter.model_dump()["method"]
        reasons.append(f"adapter.method: {method!r} is no plain LoRA, which alone adds to each token what is its own")
    else:
        if adapter.dora:
            reasons.append("adapter.dora: it scales the base's own weights, which the others share; set it to false")
        if adapter.init == "pissa":
            reasons.append("adapter.init: 'pissa' takes a part out of the base, which the others share")
        if adapter.train_new_tokens:
            reasons.append("adapter.train_new_tokens: the embeddings are the base's, which the others share")
    if quantization and quantization.bits == 8:
        reasons.append("model.quantization.bits: 8 bits round by all tokens of a pass, those of others too; use 4")
    if training.base_dropout:
        reasons.append("training.base_dropout: the base would drop for all alike; set it to false")
    if training.changes_dropout:
        reasons.append("training.changes: dropout that changes on the way is set in layers, which fused trials go past")
    if training.compile:
        reasons.append("training.compile: what is added to each trial's tokens is not compiled; set it to false")
    if training.sharding.strategy != "ddp":
        reasons.append(
            f"training.sharding.strategy: {training.sharding.strategy!r} cuts what one worker holds; use ddp"
        )
    if spec.placement.max_workers != 1:
        reasons.append(f"placement.num_workers: one worker trains all; found {spec.placement.max_workers}, write 1")
    if not spec.packing:
        reasons.append("tokens.packing: rows are padded, and trials share packed ones; set it to auto")
    return tuple(reasons)


def fused_differences(first: FinetuneSpec, other: FinetuneSpec) -> tuple[str, ...]:
    """What two runs must have in common to be trained on one base and have not, one line a field."""
    lines = []
    for path in _SHARED:
        values = []
        for spec in (first, other):
            value: object = spec
            for name in path.split("."):
                value = getattr(value, name)
            values.append(value)
        if values[0] != values[1]:
            lines.append(f"{path}: {values[0]} of {first.name}, {values[1]} of {other.name}; all share one base")
    return tuple(lines)


def fused_groups(specs: Sequence[FinetuneSpec]) -> list[list[int]]:
    """Which runs can be trained together: places of two or more that have in common what they must."""
    groups: list[list[int]] = []
    for place, spec in enumerate(specs):
        if why_not_fused(spec):
            continue
        alike = [group for group in groups if not fused_differences(specs[group[0]], spec)]
        if alike:
            alike[0].append(place)
        else:
            groups.append([place])
    return [group for group in groups if len(group) > 1]
