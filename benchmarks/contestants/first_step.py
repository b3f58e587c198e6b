"""From nothing to the first step, then this process's memory: `didact`, or `plain` transformers + PEFT.

    python first_step.py NAME STARTED_AT THREADS FOLDER BITS

BITS is 4 or 8 for a quantized base, 16 for one as it is. Prints the seconds since STARTED_AT when the step is done;
after a line on its input, the memory map's totals in MiB.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

TARGETS = ["q_proj", "v_proj"]
LENGTH = 128


def ours(folder: str, bits: int) -> tuple[Any, Any]:
    """Model and loss of one row through our loading, adapter and objective."""
    import torch

    from didact.models import attach_adapter, compute_dtype, load_base, use_packed_attention
    from didact.spec import LoraSpec, ModelSpec, QuantizationSpec
    from didact.tokens import Sample, pack
    from didact.training import Objective

    spec = ModelSpec(base=folder, quantization=QuantizationSpec(bits=bits) if bits < 16 else None)
    base = load_base(spec, shared=True)
    use_packed_attention(base, LENGTH)
    model = attach_adapter(base, LoraSpec(r=8, target_modules=TARGETS), seed=0, base_name="base")
    ids = torch.arange(100, 100 + LENGTH, dtype=torch.int32).numpy()
    return model, Objective(model, compute_dtype(spec)).summed_loss(pack([Sample(ids, ids > 0)]))


def plain(folder: str, bits: int) -> tuple[Any, Any]:
    """The same with nothing of ours but the folder of the base."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    packed = BitsAndBytesConfig(**four, bnb_4bit_compute_dtype=torch.bfloat16) if bits == 4 else None
    packed = BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else packed
    options = {"quantization_config": packed, "device_map": {"": "cpu"}} if packed else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **options)
    if packed:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = get_peft_model(model, LoraConfig(r=8, target_modules=TARGETS))
    ids = torch.arange(100, 100 + LENGTH)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model, model(input_ids=ids, labels=ids).loss


def memory() -> dict[str, int]:
    """MiB by kind, of this process."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return {kind: int(kib) // 1024 for kind, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def main(name: str, started_at: str, threads: str, folder: str, bits: str) -> None:
    """Do one step and wait."""
    import torch

    torch.set_num_threads(int(threads))
    model, loss = {"didact": ours, "plain": plain}[name](folder, int(bits))
    loss.backward()
    print(json.dumps(time.time() - float(started_at)), flush=True)
    sys.stdin.readline()
    print(json.dumps(memory()), flush=True)
    sys.stdin.read()  # pages of a process that ended would count as another's own
    del model


if __name__ == "__main__":
    main(*sys.argv[1:])
