"""Kernels of bitsandbytes are compiled when they are called, not while it is imported."""

import subprocess
import sys

from tests.conftest import ROOT

IMPORTED = """
import sys
sys.path.insert(0, "platform")
import didact.models
import peft
assert "bitsandbytes.backends.default.ops" in sys.modules
assert "torch._inductor.compile_fx" not in sys.modules
"""
CALLED = """
import sys
sys.path.insert(0, "platform")
import torch
compiled = []
def record(model=None, **options):
    compiled.append((model.__name__, options))
    return model
torch.compile = record
import didact.models
from bitsandbytes.backends.default import ops
assert torch.compile is record and not compiled
packed, code = torch.arange(256, dtype=torch.uint8), torch.linspace(-1, 1, 256)
for _ in range(2):
    found = ops._dequantize_blockwise_compute(packed, torch.full((4,), 3.0), code, 64, torch.float32)
    assert torch.equal(found.flatten(), 3 * code)
assert compiled == [("_dequantize_blockwise_compute", {"dynamic": False})]
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_peft_loads_no_compiler() -> None:
    run(IMPORTED)


def test_a_kernel_is_compiled_once_when_it_is_called() -> None:
    run(CALLED)
