"""Which A100s run which models, by the estimate, and the estimate beside what was measured. Writes docs/footprint.md.

PYTHONPATH=platform python -m benchmarks.footprint [--measure]

`--measure` trains two steps of each setting in a process of its own, some minutes in all; without it the measured
figures stay as the page has them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, PretrainedConfig, Qwen3Config

from didact.files import write_text
from didact.models import load_tokenizer
from didact.models.footprint import CUT, OFFLOADED, Load, demand_of, fewest
from didact.preparation import Plan, prepare_data, probe_recipe
from didact.spec import FinetuneSpec, FullSpec, LoraSpec, MethodSpec, ModelSpec, QuantizationSpec, validate

PAGE = Path(__file__).parents[1] / "docs" / "footprint.md"
_MARK = "## Estimated and measured"
_CAPACITIES = (40, 80)
_WORDS = ("a", "mixture", "of", "many", "small", "sources", "teaches", "more", "than", "one", "large", "source", "of")
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
_SETTINGS: dict[str, dict[str, Any]] = {
    "LoRA, bfloat16": {},
    "LoRA, float32": {"model": {"dtype": "float32"}},
    "LoRA, 4-bit base": {"model": {"dtype": "bfloat16", "quantization": {"bits": 4}}},
    "LoRA, 8-bit base": {"model": {"dtype": "bfloat16", "quantization": {"bits": 8}}},
    "full": {"adapter": {"method": "full"}},
    "LoRA, bfloat16, recomputed, 8 samples": {"training": {"gradient_checkpointing": True, "micro_batch_size": 8}},
    "LoRA r=64, float32, 2 samples of 512 tokens": {
        "model": {"dtype": "float32"},
        "adapter": {"method": "lora", "r": 64},
        "training": {"micro_batch_size": 2},
        "words": 450,
    },
    "Qwen3 of 106M, LoRA, bfloat16, 6 samples": {"base": "qwen3", "training": {"micro_batch_size": 6}},
    "GPT-NeoX of 122M, full, 2 samples": {
        "base": "gpt_neox",
        "adapter": {"method": "full"},
        "training": {"micro_batch_size": 2},
    },
}
_VOCABULARY = 49_152  # of the bundled tokenizer
_BASES: dict[str, PretrainedConfig] = {
    "qwen3": Qwen3Config(
        vocab_size=_VOCABULARY,
        hidden_size=640,
        intermediate_size=1920,
        num_hidden_layers=16,
        num_attention_heads=10,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
    ),
    "gpt_neox": GPTNeoXConfig(
        vocab_size=_VOCABULARY,
        hidden_size=640,
        intermediate_size=2560,
        num_hidden_layers=12,
        num_attention_heads=10,
        max_position_embeddings=2048,
    ),
}
_HEAD = f"""# What fits where

Written by `PYTHONPATH=platform python -m benchmarks.footprint`; a test compares the first table.

The estimate counts weights and training state on the meta device, and what autograd keeps by running one and two layers
of the model, with its method, on tensors without data. On top come logits (of some hundred positions at a time where
[the loop](training.md) computes them so), the gradients of one block (a third of them on a GPU, whose allocator gives
room on at once), one unpacked layer of a quantized base, the gathered blocks of a cut one, and an overhead: on a GPU
1 GiB for context and buffers and 6% for fragmentation.
`didact plan RECIPE` shows it for the recipe's `training.sharding`; `--probe` runs two steps on this machine and shows
their peak, the speed, and what a step and the run would take.

## A100s, estimated

None of these were run. One sample of {_TOKENS:,} tokens a worker, all of them learned, activations recomputed, LoRA of
rank 16 on all linear layers. The fewest A100s (1, 2, 4 ... 64), and on them the first of ddp, zero2 and fsdp that fits,
with a worker's memory; then the fewest when `cpu_offload` may keep what fsdp cuts in main memory (where full finetuning
needs 16 bytes a parameter).

| model | parameters | method | 40 GB | 80 GB | 40 GB, offloading | 80 GB, offloading |
|---|---:|---|---|---|---|---|
"""
_MEASURED_HEAD = f"""{_MARK}

The bundled 135M base on one CPU worker with one thread, two steps of 4 samples a forward pass where nothing else is
said, each setting in its own process (`--measure`). Measured is Linux's `VmHWM` after loading, without what it
held before it (imports and data). The last three settings were never looked at while the estimate was made: another
length and rank, and two bases of other families with random weights.

They run with what workers are started with (`env.for_training`): the jemalloc that Ray brings, preloaded. The
estimate counts no holes, and glibc's heap leaves many between the tensors of a step. The first setting,
CPU seconds of a step on a shared core (differences under 10% mean nothing):

| allocator | peak GiB | user s | kernel s |
|---|---:|---:|---:|
| glibc | 2.11 | 4.89 | 0.05 |
| glibc, `MALLOC_MMAP_THRESHOLD_` of 16 MiB | 2.07 | 4.22 | 0.19 |
| glibc, of 4 MiB | 2.03 | 4.62 | 0.13 |
| glibc, of 1 MiB | 1.50 | 4.59 | 3.09 |
| jemalloc | 1.48 | 4.21 | 0.87 |
| jemalloc, `dirty_decay_ms:60000` | 1.50 | 3.60 | 0.73 |
| jemalloc, `dirty_decay_ms:60000,thp:always` | 1.57 | 4.25 | 1.56 |

Whoever sets `LD_PRELOAD` keeps it. Where there is no such library, expect glibc's peak.

| setting | tokens a pass | estimate GiB | of it overhead | measured GiB | estimate / measured |
|---|---:|---:|---:|---:|---:|
"""


def accelerator_table() -> str:
    """The page up to what is measured."""
    lines = []
    for name, shape in _SHAPES.items():
        for method, (model, adapter) in _METHODS.items():
            load = Load(_TOKENS, recompute=True, on_cpu=False)
            demand = demand_of(LlamaConfig(vocab_size=32_000, **shape), model, adapter, load)
            cells = [fewest(demand, memory, choices) for choices in (CUT, OFFLOADED) for memory in _CAPACITIES]
            base = demand.num_parameters if method == "full" else demand.num_parameters - demand.num_trainable
            shown = " | ".join(str(cell or "more than 64") for cell in cells)
            lines.append(f"| {name} | {base / 1e9:.1f}B | {method} | {shown} |")
    return _HEAD + "\n".join(lines) + "\n\n"


def recipe(setting: str, folder: Path) -> FinetuneSpec:
    """One of the measured settings, on made-up text and perhaps a made-up base that are written into `folder`."""
    chosen = _SETTINGS[setting]
    words = chosen.get("words", 150)
    text = [" ".join(_WORDS[(row * 7 + place * place) % len(_WORDS)] for place in range(words)) for row in range(40)]
    rows = [json.dumps({"instruction": line, "input": "", "output": line[::-1][: 2 * words]}) for line in text]
    write_text(folder / "text.jsonl", "\n".join(rows) + "\n")
    model = chosen.get("model", {"dtype": "bfloat16"})
    if "base" in chosen:
        model = {**model, "base": str(_made_base(chosen["base"], folder / "base"))}
    training = {"steps": 2, "global_batch_size": 8, "micro_batch_size": 4, **chosen.get("training", {})}
    values = {
        "name": "footprint",
        "model": model,
        "adapter": chosen.get("adapter", {"method": "lora", "r": 16}),
        "data": {"sources": [{"name": "text", "path": str(folder / "text.jsonl")}]},
        "training": {**training, "global_batch_size": training["micro_batch_size"]},
        "placement": {"num_workers": 1, "device": "cpu"},
    }
    return validate(FinetuneSpec, values, setting)


def _made_base(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(_BASES[name]).save_pretrained(folder)
    load_tokenizer(ModelSpec()).save_pretrained(folder)
    return folder


def measured_row(setting: str) -> str:
    """Estimate and measurement."""
    with tempfile.TemporaryDirectory() as folder:
        spec = recipe(setting, Path(folder))
        prepared = prepare_data(spec)
        planned = Plan.of(spec, prepared)
        peak = probe_recipe(spec).peak_gib
    estimate = planned.footprint
    return (
        f"| {setting} | {planned.tokens_per_micro_batch:,} | {estimate.total_gib:.2f} | {estimate.overhead_gib:.2f} | "
        f"{peak:.2f} | {estimate.total_gib / peak:.2f} |"
    )


def measured_table() -> str:
    """Every setting in a process of its own, one after the other."""
    command = [sys.executable, "-m", "benchmarks.footprint", "--setting"]
    rows = [
        subprocess.run([*command, setting], capture_output=True, text=True, check=True).stdout for setting in _SETTINGS
    ]
    return _MEASURED_HEAD + "".join(row.splitlines()[-1] + "\n" for row in rows)


def main() -> None:
    """Write the page, or print one row of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--setting", choices=_SETTINGS)
    arguments = parser.parse_args()
    if arguments.setting:
        print(measured_row(arguments.setting))
        return
    page = PAGE.read_text(encoding="utf-8")
    measured = measured_table() if arguments.measure else page[page.index(_MARK) :]
    write_text(PAGE, accelerator_table() + measured)


if __name__ == "__main__":
    main()
