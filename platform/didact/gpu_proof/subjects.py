"""What checks and benchmarks compute with: random models of any size, made in memory, and rows of random tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from didact.mixtures import Mixture
from didact.models.base.quantize import keep_unpacked, quantization_config
from didact.spec import QuantizationSpec
from didact.tokens import Batch, Sample, StepBatches, pack, pad

VOCABULARY = 1024
_TINY = {"vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 2048, "resid_pdrop": 0.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_TINY, **_HEADS},
    "mistral": {**_TINY, **_HEADS, "sliding_window": 64},
    "qwen2": {**_TINY, **_HEADS},
    "qwen3": {**_TINY, **_HEADS, "head_dim": 32},
    "gemma": {**_TINY, **_HEADS, "head_dim": 32},
    "phi": {**_TINY, **_HEADS, "resid_pdrop": 0.0},
    "gpt_neox": {**_TINY, "num_attention_heads": 4, "max_position_embeddings": 2048},
    "gpt2": {**_GPT2, "attn_pdrop": 0.0, "embd_pdrop": 0.0},
    "glm4": {**_TINY, **_HEADS, "head_dim": 32},
}
SIZES: dict[str, dict[str, Any]] = {
    # Shapes of Llama 3.2 1B and Llama 2 7B (their config.json on the Hugging Face hub).
    "1B": {
        **{"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
        **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
        "max_position_embeddings": 131_072,
    },
    "7B": {
        **{"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32},
        **{"num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096},
    },
}


def tiny_config(family: str = "llama") -> PreTrainedConfig:
    """Two layers of `family`."""
    special = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    return AutoConfig.for_model(family, **FAMILIES[family], **special)


def large_config(size: str) -> PreTrainedConfig:
    """A Llama of `size` (a key of SIZES)."""
    return AutoConfig.for_model("llama", **SIZES[size], bos_token_id=None, eos_token_id=2, pad_token_id=0)


def random_base(
    config: PreTrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    quantization: QuantizationSpec | None = None,
    *,
    drawn_on: torch.device | None = None,
) -> PreTrainedModel:
    """A frozen model with random weights in eval mode on `device`, as `load_base` gives a real one.

    Args:
        config: of the model.
        device: where it will lie; quantized weights are quantized there.
        dtype: of weights that are not quantized.
        quantization: of the linear layers but the output layer.
        drawn_on: the device whose random numbers are taken, in float32; models that are compared share it. Default
            `device`, in `dtype`, which is fast for large models.
    """
    torch.manual_seed(0)
    with torch.device(drawn_on or device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if drawn_on else dtype)
    model.to(dtype)
    if quantization is not None:
        _quantize(model, quantization, dtype, device)
    return model.to(device).requires_grad_(False).eval()


def _quantize(model: PreTrainedModel, quantization: QuantizationSpec, dtype: torch.dtype, device: torch.device) -> None:
    """Replace linear layers, except the output layer, by quantized ones, one at a time, as loading would."""
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is torch.nn.Linear and layer is not head:
            model.set_submodule(name, _quantized(layer, quantization, dtype, device))
    model.config.quantization_config = quantization_config(quantization, dtype)
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = quantization.bits == 4, quantization.bits == 8
    keep_unpacked(model)


def _quantized(
    layer: torch.nn.Linear, spec: QuantizationSpec, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    weight = layer.weight.data
    made: Linear4bit | Linear8bitLt
    if spec.bits == 8:
        made = Linear8bitLt(
            layer.in_features, layer.out_features, layer.bias is not None, has_fp16_weights=False, device="meta"
        )
        # Quantized by the move to the device, which 8-bit weights must make from the CPU.
        made.weight = Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        made = Linear4bit(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            compute_dtype=dtype,
            compress_statistics=spec.double,
            quant_type=spec.type,
            quant_storage=dtype,
            device="meta",  # else weights are drawn first that nobody needs
        )
        made.weight = Params4bit(
            weight,
            requires_grad=False,
            compress_statistics=spec.double,
            quant_type=spec.type,
            quant_storage=dtype,
            module=made,
        )
    made.bias = layer.bias
    return made.to(device)


def random_samples(lengths: Sequence[int], vocabulary: int = VOCABULARY, seed: int = 0) -> list[Sample]:
    """Random tokens, the last third of each sample learned, as of instruction data."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for length in lengths:
        ids = torch.randint(3, vocabulary, (length,), generator=generator, dtype=torch.int32).numpy()
        samples.append(Sample(ids, torch.arange(length).ge(length * 2 // 3).numpy()))
    return samples


def short_lengths(count: int, seed: int = 0) -> list[int]:
    """Lengths of `count` samples like those of instruction data: 120 tokens in the mean, log-normal, 16 to 512."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.exp(torch.randn(count, generator=generator) * 0.7 + 4.54)
    return drawn.clamp(16, 512).int().tolist()


@dataclass(frozen=True)
class RandomSteps:
    """Steps of random samples, in the place of `StepLoader`: equal for every worker count."""

    lengths: tuple[tuple[int, ...], ...]
    """Samples of each micro-batch of each step."""
    vocabulary: int = VOCABULARY
    packing: bool = True
    accumulate: int = 1
    """Micro-batches a step."""
    made: dict[int, tuple[Batch, ...]] = field(default_factory=dict)

    @property
    def mixture(self) -> Mixture:
        """Of one source, which keeps its share."""
        return Mixture.build(["random"], [1], [1.0], [1.0], "rows", seed=0)

    def step(self, step: int, rank: int = 0, world_size: int = 1, *, even: bool = False) -> StepBatches:
        """The micro-batches of worker `rank`; `lengths` are gone through again and again, with other tokens."""
        if step not in self.made:
            first = step * self.accumulate
            self.made[step] = tuple(self._batch(number) for number in range(first, first + self.accumulate))
        batches = self.made[step]
        mine = batches[rank::world_size]
        if even and not mine:
            mine = (batches[0].without_targets(),)
        return StepBatches(
            micro_batches=mine,
            num_supervised=sum(batch.num_supervised for batch in batches),
            num_tokens=sum(batch.num_tokens for batch in batches),
            sample_ids=(f"step-{step}",),
        )

    def _batch(self, number: int) -> Batch:
        samples = random_samples(self.lengths[number % len(self.lengths)], self.vocabulary, seed=number)
        return pack(samples) if self.packing else pad(samples, 0)
