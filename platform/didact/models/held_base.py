"""A base in the form in which it is computed with, written to the cache once.

Weights that are quantized or cast while they are loaded belong to the process that did it. Those of a file that already
holds them so are mapped: the machine reads them once, and its workers, trials and replicas share the pages.
"""

import contextlib
import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open
from transformers import GenerationConfig, PreTrainedModel

from didact.env import cache_dir
from didact.files import fingerprint, new_folder
from didact.logs import get_logger
from didact.models.fingerprint import folder_fingerprint
from didact.spec import QuantizationSpec

_LOG = get_logger(__name__)
_FORMAT = 1
"""Raise when what is written changes, so that folders written before are not used."""
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_GENERATION = "generation_config.json"


def held_folder(
    folder: Path,
    dtype: torch.dtype,
    quantization: QuantizationSpec | None,
    load: Callable[[], PreTrainedModel],
) -> Path:
    """The folder itself when its weights are computed with as they are stored, else a copy that is, made on first use.

    Args:
        folder: a base that transformers' own classes load.
        dtype: of weights that are not quantized.
        quantization: None for none.
        load: reads `folder` in that form.
    """
    if quantization is None and _is_held(folder, dtype):
        return folder
    options = [quantization.model_dump(), importlib.metadata.version("bitsandbytes")] if quantization else None
    key = fingerprint([_FORMAT, folder_fingerprint(folder), str(dtype), options])[:16]
    form = f"{quantization.bits}bit" if quantization else str(dtype).removeprefix("torch.")
    target = cache_dir() / "models" / f"held-{form}-{key}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not (target / "config.json").exists():
            _LOG.info("writing %s in %s to %s (once)", folder, form, target)
            _write(load(), folder, target)
    return target


def _is_held(folder: Path, dtype: torch.dtype) -> bool:
    """Whether every floating-point weight is stored in `dtype`, in a file that can be mapped."""
    files = list(folder.glob("*.safetensors"))
    stored: set[str] = set()
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            stored |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - not iterable
    return bool(files) and {_FLOATS[each] for each in stored & _FLOATS.keys()} <= {dtype}


def _write(model: PreTrainedModel, folder: Path, target: Path) -> None:
    model.generation_config = GenerationConfig()  # published ones are often refused when they are saved again
    # Saving imports DeepSpeed where it is installed, which writes to what then is stdout.
    with new_folder(target) as scratch, contextlib.redirect_stdout(sys.stderr):
        model.save_pretrained(scratch)
        (scratch / _GENERATION).unlink(missing_ok=True)
        if (folder / _GENERATION).is_file():
            shutil.copyfile(folder / _GENERATION, scratch / _GENERATION)
