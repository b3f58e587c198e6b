"""What a base takes while it is served: weights, adapters beside them, keys and values. No weight is loaded for it."""

from dataclasses import dataclass

from transformers import AutoConfig, PreTrainedConfig

from didact.models.base.description import base_description
from didact.models.footprint.counting import Subject, held_bytes
from didact.spec import LoraSpec, ModelSpec

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class ServedFootprint:
    """Of one base in memory."""

    weights_gib: float
    adapter_gib: float
    """Of one adapter of the method that was asked for."""
    bytes_per_token: int
    """Keys and values of one token of one row."""
    context_length: int
    """Tokens of prompt and answer together."""
    dtype: str
    """Of matrix products, and of keys and values."""

    def cache_gib(self, num_tokens: int) -> float:
        """Keys and values of so many tokens."""
        return num_tokens * self.bytes_per_token / _GIB


def served_footprint(model: ModelSpec, adapter: LoraSpec, *, on_cpu: bool) -> ServedFootprint:
    """Count a base, and an adapter on it, on the meta device.

    Args:
        model: how the base is held.
        adapter: one of those that are served.
        on_cpu: where it computes.

    Raises:
        ModelError: there is no such base.
    """
    folder = base_description(model)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    subject = Subject(model, adapter, on_cpu=on_cpu)
    bare = subject.bare(config)
    values = sum(each.numel() for each in bare.parameters())
    added = sum(each.numel() for each in subject.attached(config).parameters()) - values
    width = subject.compute.itemsize
    text = config.get_text_config()
    return ServedFootprint(
        weights_gib=sum(held_bytes(model, bare).values()) / _GIB,
        adapter_gib=max(0, added) * width / _GIB,
        bytes_per_token=_values_per_token(text) * width,
        context_length=int(getattr(text, "max_position_embeddings", 2**20)),
        dtype=str(subject.compute).removeprefix("torch."),
    )


def _values_per_token(text: PreTrainedConfig) -> int:
    """Numbers that all layers keep for a token; layers that keep less (windows, states) are counted as if they did."""
    heads = text.num_attention_heads
    kept = getattr(text, "num_key_value_heads", None) or heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return int(2 * text.num_hidden_layers * kept * size)
