"""DeepSpeed, imported only when a recipe asks for it: the import takes seconds and writes to the terminal."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from filelock import FileLock

from didact import env
from didact.logs import get_logger
from didact.training.world import compute_device

_LOG = get_logger(__name__)
_COMPILE_SECONDS = 60


def import_deepspeed() -> Any:
    """The package, quiet, with its compiled code kept in didact's cache."""
    env.set_default("TORCH_EXTENSIONS_DIR", str(env.cache_dir() / "torch_extensions"))
    device = compute_device()
    env.set_default("DS_ACCELERATOR", device.type)
    env.set_default("LOCAL_RANK", str(device.index or 0))
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Sums through shared memory serve inference only; DeepSpeed would compile them for minutes and print about it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False, verbose=False)
    return deepspeed


def load_cpu_adam() -> Any:
    """DeepSpeed's AdamW for state in main memory. Its C++ is compiled once a machine, by the first worker to come."""
    import_deepspeed()
    from deepspeed.ops.adam import DeepSpeedCPUAdam
    from deepspeed.ops.op_builder import CPUAdamBuilder

    env.prepend_path(Path(sys.executable).parent)  # where ninja lies, also when the environment is not activated
    folder = env.cache_dir() / "torch_extensions"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "cpu_adam.lock"):
        # A worker killed while compiling leaves PyTorch's own lock behind, at which the next would wait for ever.
        (folder / "cpu_adam" / "lock").unlink(missing_ok=True)
        if not (folder / "cpu_adam" / "cpu_adam.so").is_file():
            _LOG.warning("compiling DeepSpeed's CPU Adam once, about %d s", _COMPILE_SECONDS)
        began = time.monotonic()
        CPUAdamBuilder().load(verbose=False)
        _LOG.info("DeepSpeed's CPU Adam is loaded after %.0f s", time.monotonic() - began)
    return DeepSpeedCPUAdam
