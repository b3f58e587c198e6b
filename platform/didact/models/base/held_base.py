"""A base in the number format that it computes with, quantized or cast, written to the cache once.

Weights that are quantized or cast while they are loaded belong to the process that did it. Those of a file that already
holds them so are mapped: the machine reads them once, and its workers, trials and replicas share the pages.
"""

import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import GenerationConfig, PreTrainedModel

from didact.env import cache_dir
from didact.files import fingerprint
from didact.logs import get_logger
from didact.models.fingerprint import weights_digest
from didact.models.model_folder import cached_model, save_model
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
    key = fingerprint([_FORMAT, weights_digest(folder), str(dtype), options])[:16]
    form = f"{quantization.bits}bit" if quantization else str(dtype).removeprefix("torch.")
    target = cache_dir() / "models" / f"held-{form}-{key}"

    def write(scratch: Path) -> None:
        _LOG.info("writing %s in %s to %s (once)", folder, form, target)
        _write(load(), folder, scratch)

    return cached_model(target, write)


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
    save_model(model, target)
    (target / _GENERATION).unlink(missing_ok=True)
    if (folder / _GENERATION).is_file():
        shutil.copyfile(folder / _GENERATION, target / _GENERATION)
