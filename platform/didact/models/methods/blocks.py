"""Where things are in a decoder: found from the module tree, so that any family will do."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from didact.errors import ModelError

_ATTENTION_WORDS = ("attn", "attention")
_QUERY_NAMES = ("q_proj", "query", "q", "wq", "q_a_proj", "q_b_proj")


@dataclass(frozen=True, slots=True)
class Block:
    """Names, from the model's root, of the parts of one decoder block."""

    name: str
    attention: tuple[str, ...]
    """Linear layers of the attention, in the order of their definition; the last one is its output."""
    feed_forward: tuple[str, ...]
    """Linear layers after the attention; the last one is the output."""

    @property
    def attention_inputs(self) -> tuple[str, ...]:
        """Keys and values, or the one projection that holds queries, keys and values together."""
        return tuple(name for name in self.attention[:-1] if name.rpartition(".")[2] not in _QUERY_NAMES)

    @property
    def feed_forward_module(self) -> str | None:
        """The module around the feed-forward; None where its layers lie in the block itself."""
        parent = self.feed_forward[-1].rpartition(".")[0]
        return None if parent == self.name else parent


def decoder_blocks(model: PreTrainedModel) -> tuple[Block, ...]:
    """The blocks of a causal language model, first to last.

    Raises:
        ModelError: no list of `num_hidden_layers` modules that hold an attention and a feed-forward.
    """
    wanted = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == wanted:
            blocks = tuple(_block(f"{name}.{position}", block) for position, block in enumerate(module))
            if all(block.attention and block.feed_forward for block in blocks):
                return blocks
    raise ModelError(
        f"{type(model).__name__} has no list of {wanted} blocks with an attention and a feed-forward of linear layers; "
        "choose a method that names its target_modules, such as lora"
    )


def is_linear(module: torch.nn.Module) -> bool:
    """Linear layers of torch, GPT-2's transposed ones, and quantized ones."""
    return isinstance(module, torch.nn.Linear | Conv1D)


def _block(name: str, block: torch.nn.Module) -> Block:
    linear = [f"{name}.{inner}" for inner, module in block.named_modules() if is_linear(module)]
    attention = tuple(each for each in linear if _in_attention(each.removeprefix(name)))
    return Block(name, attention, tuple(each for each in linear if each not in attention))


def _in_attention(name: str) -> bool:
    return any(word in name.lower() for word in _ATTENTION_WORDS)
