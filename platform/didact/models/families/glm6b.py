"""The first GLM decoder at 6B: a prompt read in both directions, then an answer with positions of its own.

Every token has two positions, each rotating half of a head (Du et al., 2022, section 2.3): its place in the prompt,
which answers spend at the mask token, and its place in the answer, which is 0 in the prompt. The prompt ends before
<sop>. Each sublayer is added to its *normalised* input, scaled up as in DeepNorm.
"""

import math
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from didact.models.families.glm6b_layout import NEVER, Layout, places, remembered, visible

_ROPE_BASE = 10_000


class Glm6bConfig(PreTrainedConfig):
    """Sizes, and the tokens that the positions hang on."""

    model_type = "glm6b"
    keys_to_ignore_at_inference: ClassVar = ["past_key_values"]

    vocab_size: int = 130_528
    hidden_size: int = 4096
    intermediate_size: int = 16_384
    num_hidden_layers: int = 28
    num_attention_heads: int = 32
    max_position_embeddings: int = 2048
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    residual_scale: float = math.sqrt(2 * 28)
    mask_token_id: int = 130_000
    gmask_token_id: int = 130_001
    bos_token_id: int = 130_004
    eos_token_id: int = 130_005
    pad_token_id: int = 3
    tie_word_embeddings: bool = False
    use_cache: bool = True


class Glm6bAttention(nn.Module):
    """Query, key and value of each head side by side in one projection."""

    def __init__(self, config: Glm6bConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor, rotation: tuple[torch.Tensor, ...], past: Cache | None
    ) -> torch.Tensor:
        """[batch, tokens, hidden] to the same; `mask` is true where to look, [batch, 1, tokens, keys]."""
        batch, tokens, width = hidden.shape
        heads = self.query_key_value(hidden).view(batch, tokens, self.num_heads, -1).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=-1)
        query, key = _rotated(query, rotation), _rotated(key, rotation)
        if past is not None:
            key, value = past.update(key, value, self.layer)
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.dense(context.transpose(1, 2).reshape(batch, tokens, width))


class Glm6bMlp(nn.Module):
    """Two projections with the tanh form of GELU between."""

    def __init__(self, config: Glm6bConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., hidden] to the same."""
        return self.dense_4h_to_h(functional.gelu(self.dense_h_to_4h(hidden), approximate="tanh"))


class Glm6bLayer(GradientCheckpointingLayer):
    """One block."""

    def __init__(self, config: Glm6bConfig, layer: int) -> None:
        super().__init__()
        self.scale = config.residual_scale
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Glm6bAttention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Glm6bMlp(config)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor, rotation: tuple[torch.Tensor, ...], past: Cache | None
    ) -> torch.Tensor:
        """[batch, tokens, hidden] to the same."""
        normed = self.input_layernorm(hidden)
        normed = self.post_attention_layernorm(normed * self.scale + self.attention(normed, mask, rotation, past))
        return normed * self.scale + self.mlp(normed)


class Glm6bPreTrainedModel(PreTrainedModel):
    """What both classes share with transformers."""

    config_class = Glm6bConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = ["Glm6bLayer"]
    _skip_keys_device_placement: ClassVar = ["past_key_values"]
    _supports_sdpa = True


class Glm6bModel(Glm6bPreTrainedModel):
    """Embeddings, blocks, last norm."""

    def __init__(self, config: Glm6bConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Glm6bLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of words."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace it, as when tokens are added."""
        self.word_embeddings = value

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **_kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As other decoders, but for `input_ids`, which are needed to find the prompt's end.

        Args:
            input_ids: [batch, new tokens].
            attention_mask: [batch, all tokens], 0 at padding.
            position_ids: [batch, new tokens], counted from 0 in each sample as for one-dimensional positions.
            past_key_values: earlier tokens; one more layer of it remembers where prompt and mask token ended.
            inputs_embeds: used in place of the ids' own embeddings.
            use_cache: give the cache back.
        """
        hidden = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        num_past = past_key_values.get_seq_length() if past_key_values is not None else 0
        layout = self._layout(input_ids, places(input_ids, attention_mask, position_ids, num_past), past_key_values)
        mask = visible(layout, attention_mask, num_past)
        rotation = self._rotation(layout, hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, mask, rotation, past_key_values)
        return BaseModelOutputWithPast(last_hidden_state=self.final_layernorm(hidden), past_key_values=past_key_values)

    def _layout(self, ids: torch.Tensor, place: torch.Tensor, past: Cache | None) -> Layout:
        sample = (place == 0).cumsum(1)
        same = sample[:, :, None] == sample[:, None, :]
        start, gmask, mask = (
            torch.where(same & (ids == token)[:, None, :], place[:, None, :], NEVER).amin(-1)
            for token in (self.config.bos_token_id, self.config.gmask_token_id, self.config.mask_token_id)
        )
        mask_place = gmask.where(gmask < NEVER, mask)
        if past is not None:
            start, mask_place = remembered(past, len(self.layers), start, mask_place)
        start, mask_place = (each.where(each < NEVER, 0) for each in (start, mask_place))
        answers = place >= start
        return Layout(
            place=mask_place.where(answers, place),
            answer_place=(place - start + 1).clamp(min=0),
            start=start,
            mask_place=mask_place,
            sample=sample,
        )

    def _rotation(self, layout: Layout, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """Cosine and sine of both positions, each [batch, 1, tokens, head / 2]."""
        width = self.config.hidden_size // self.config.num_attention_heads // 2
        exponents = torch.arange(0, width, 2, device=layout.place.device).float() / width
        frequencies = (1.0 / _ROPE_BASE**exponents).half().float()  # the published weights were trained with these
        tables = []
        for place in (layout.place, layout.answer_place):
            angles = (place[:, None, :, None] * frequencies).repeat(1, 1, 1, 2)
            tables += [angles.cos().to(dtype), angles.sin().to(dtype)]
        return tuple(tables)


class Glm6bForCausalLM(Glm6bPreTrainedModel, GenerationMixin):
    """`Glm6bModel` with an output layer."""

    def __init__(self, config: Glm6bConfig) -> None:
        super().__init__(config)
        self.transformer = Glm6bModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **_kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, and the loss of `labels`; `logits_to_keep` is a number of last tokens (0: all) or their indices."""
        output = self.transformer(input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])
        loss = self.loss_function(logits, labels, self.config.vocab_size) if labels is not None else None
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=output.past_key_values)


def _rotated(heads: torch.Tensor, rotation: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """[batch, heads, tokens, head]: each half turned by its own position."""
    turned = []
    for half, cos, sin in zip(heads.chunk(2, dim=-1), rotation[0::2], rotation[1::2], strict=True):
        left, right = half.chunk(2, dim=-1)
        turned.append(half * cos + torch.cat([-right, left], dim=-1) * sin)
    return torch.cat(turned, dim=-1)
