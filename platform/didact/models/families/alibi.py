"""Llama without rotary positions: attention scores fall linearly with distance (ALiBi, Press et al., 2021)."""

import math
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast


class AlibiLlamaConfig(LlamaConfig):
    """A Llama configuration whose positions are distances."""

    model_type = "alibi_llama"


class AlibiLlamaModel(LlamaModel):
    """Llama's own layers, given a rotation by nothing and a mask that carries the biases."""

    config_class = AlibiLlamaConfig
    _supports_flash_attn = False
    _supports_flex_attn = False

    def __init__(self, config: AlibiLlamaConfig) -> None:
        super().__init__(config)
        del self.rotary_emb

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As `LlamaModel.forward`; `position_ids` only tell packed samples apart."""
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        bias = self._bias(hidden, attention_mask, past_key_values, position_ids)
        rotation = torch.ones_like(hidden[..., : self.config.head_dim])
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=bias,
                position_embeddings=(rotation, torch.zeros_like(rotation)),
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), past_key_values=past_key_values)

    def _bias(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, past: Cache | None, positions: torch.Tensor | None
    ) -> torch.Tensor:
        """[batch, heads, queries, keys] to add to the scores: lowest where not to look, else slope x distance."""
        allowed = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            past_key_values=past,
            position_ids=positions,
            allow_is_causal_skip=False,
        )
        if allowed.dtype != torch.bool:  # eager attention's own form
            allowed = allowed >= 0
        queries, keys = allowed.shape[-2:]
        places = torch.arange(keys, device=hidden.device)
        distance = places[None, :] - places[keys - queries :, None]
        slopes = torch.tensor(alibi_slopes(self.config.num_attention_heads), device=hidden.device)
        bias = (slopes[:, None, None] * distance).to(hidden.dtype)
        return bias[None].where(allowed, torch.finfo(hidden.dtype).min)


class AlibiLlamaForCausalLM(LlamaForCausalLM):
    """`AlibiLlamaModel` with an output layer."""

    config_class = AlibiLlamaConfig
    _supports_flash_attn = False
    _supports_flex_attn = False

    def __init__(self, config: AlibiLlamaConfig) -> None:
        super(LlamaForCausalLM, self).__init__(config)
        self.model = AlibiLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


def alibi_slopes(num_heads: int) -> list[float]:
    """One slope a head: a geometric series for a power of two, else filled up from every other one of the next."""
    closest = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (head + 1) / closest) for head in range(closest)]
    if closest < num_heads:
        slopes += alibi_slopes(2 * closest)[0::2][: num_heads - closest]
    return slopes
