"""From nothing to the first step, then this process's memory: `didact`, or `plain` transformers + PEFT.

    python first_step.py NAME STARTED_AT THREADS

Prints the seconds since STARTED_AT when the step is done; after a line on its input, the memory map's totals in MiB.
"""

import json
import re
import sys
import time
from pathlib import Path

TARGETS = ["q_proj", "v_proj"]
LENGTH = 128


def ours() -> object:
    """The loss of one row through our loading, adapter and objective."""
    import torch

    from didact.models import attach_adapter, compute_dtype, load_base, use_packed_attention
    from didact.spec import LoraSpec, ModelSpec
    from didact.tokens import Sample, pack
    from didact.training import Objective

    torch.set_num_threads(int(sys.argv[3]))
    base = load_base(ModelSpec())
    use_packed_attention(base, LENGTH)
    model = attach_adapter(base, LoraSpec(r=8, target_modules=TARGETS), seed=0, base_name="base")
    ids = torch.arange(100, 100 + LENGTH, dtype=torch.int32).numpy()
    return Objective(model, compute_dtype(ModelSpec())).summed_loss(pack([Sample(ids, ids > 0)]))


def plain() -> object:
    """The same with nothing of ours but the folder of the base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(sys.argv[3]))
    model = AutoModelForCausalLM.from_pretrained(sys.argv[4], dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=8, target_modules=TARGETS))
    ids = torch.arange(100, 100 + LENGTH)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(input_ids=ids, labels=ids).loss


def memory() -> dict[str, int]:
    """MiB by kind, of this process."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return {kind: int(kib) // 1024 for kind, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


if __name__ == "__main__":
    {"didact": ours, "plain": plain}[sys.argv[1]]().backward()
    print(json.dumps(time.time() - float(sys.argv[2])), flush=True)
    sys.stdin.readline()
    print(json.dumps(memory()), flush=True)
    sys.stdin.read()  # pages of a process that ended would count as another's own
