"""Which A100s run which models, by the estimate. Writes docs/footprint.md.

PYTHONPATH=platform python -m benchmarks.footprint
"""

from pathlib import Path

from transformers import LlamaConfig

from didact.files import write_text
from didact.models.footprint import Load, demand_of, fewest
from didact.spec import FullSpec, LoraSpec, MethodSpec, ModelSpec, QuantizationSpec

PAGE = Path(__file__).parents[1] / "docs" / "footprint.md"


_TOKENS = 2048
_HALF = ModelSpec(dtype="bfloat16")
_SHAPES = {
    "Llama 2 7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "Llama 2 13B": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "LLaMA 30B": {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52},
    "Llama 2 70B": {
        **{"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
        "num_key_value_heads": 8,
    },
}
_METHODS: dict[str, tuple[ModelSpec, MethodSpec]] = {
    "full": (_HALF, FullSpec(method="full")),
    "LoRA": (_HALF, LoraSpec(r=16)),
    "QLoRA": (_HALF.model_copy(update={"quantization": QuantizationSpec(bits=4)}), LoraSpec(r=16)),
}
_HEAD = f"""# What fits where

Written by `PYTHONPATH=platform python -m benchmarks.footprint`; a test compares it. These are estimates, not runs.

The estimate counts weights and training state on the meta device and what autograd keeps by running one and two layers
of the model, with its method, on tensors without data. Logits, one unpacked layer of a quantized base, the gathered
blocks of a cut one and 1 GiB + 6% for context and fragmentation come on top. `didact plan RECIPE --probe` runs two steps
and shows the measured peak beside it: resident memory at its highest after loading, without the process as it was before.

One sample of {_TOKENS:,} tokens a worker, all of them learned, activations recomputed, LoRA r=16 on all linear layers.
The fewest A100s (1, 2, 4 ... 64), and on them the first of ddp, zero2 and fsdp that fits, with a worker's memory.

| model | parameters | method | A100 40 GB | A100 80 GB |
|---|---:|---|---|---|
"""


def page() -> str:
    """The whole page."""
    lines = []
    for name, shape in _SHAPES.items():
        for method, (model, adapter) in _METHODS.items():
            load = Load(_TOKENS, recompute=True, on_cpu=False)
            demand = demand_of(LlamaConfig(vocab_size=32_000, **shape), model, adapter, load)
            cells = [str(fewest(demand, memory) or "more than 64") for memory in (40, 80)]
            base = demand.num_parameters if method == "full" else demand.num_parameters - demand.num_trainable
            lines.append(f"| {name} | {base / 1e9:.1f}B | {method} | {' | '.join(cells)} |")
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(PAGE, page())
