"""From an original folder to a native one in the cache, shard by shard."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedConfig

from didact.env import cache_dir
from didact.errors import ModelError
from didact.files import fingerprint, new_folder, write_json
from didact.logs import get_logger
from didact.models.families.detect import family_of
from didact.models.families.family import Family, Tensors
from didact.models.families.own import register_own_models
from didact.models.fingerprint import folder_fingerprint

_LOG = get_logger(__name__)
_FORMAT = 1
"""Raise when a conversion changes, so that caches made before are not used."""
_TOKENIZER_FILES = ("tokenizer.model", "ice_text.model", "vocab.json")


def native_folder(folder: Path) -> Path:
    """The folder itself when transformers loads it as it is, else its conversion, made on first use.

    Raises:
        ModelError: settings, tensors or a tokenizer that the conversion is not proven for.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    register_own_models(config.get("model_type"))
    family = family_of(config)
    if family is None:
        return folder
    key = fingerprint([_FORMAT, folder_fingerprint(folder), _tokenizer_facts(folder)])[:16]
    target = cache_dir() / "models" / f"{family.name}-{key}"
    target.parent.mkdir(parents=True, exist_ok=True)
    native = family.config(config)
    register_own_models(native.model_type)
    with FileLock(f"{target}.lock"):
        if not (target / "config.json").exists():
            _LOG.info("converting %s (%s) into %s (once)", folder, family.name, target)
            _convert(folder, family, config, native, target)
    return target


def _convert(folder: Path, family: Family, config: dict[str, Any], native: PreTrainedConfig, target: Path) -> None:
    expected = _expected_shapes(native)
    written: dict[str, str] = {}
    total = 0
    with new_folder(target) as scratch:
        for number, shard in enumerate(_shards(folder), start=1):
            converted: Tensors = {}
            for name, tensor in shard:
                converted |= family.tensors(config, name, tensor)
            _check_shapes(family.name, converted, expected)
            file = f"model-{number:05d}.safetensors"
            save_file({name: each.contiguous() for name, each in converted.items()}, scratch / file, {"format": "pt"})
            written |= dict.fromkeys(converted, file)
            total += sum(each.nbytes for each in converted.values())
        if missing := sorted(expected.keys() - written.keys()):
            raise ModelError(f"{folder} lacks {len(missing)} tensors of a {family.name} model, such as {missing[0]}")
        index = {"metadata": {"total_size": total}, "weight_map": written}
        write_json(scratch / "model.safetensors.index.json", index)
        if any((folder / name).is_file() for name in _TOKENIZER_FILES):
            family.tokenizer(folder, config).save_pretrained(scratch)
        native.save_pretrained(scratch)


def _shards(folder: Path) -> Iterator[Iterator[tuple[str, torch.Tensor]]]:
    """The weight files of a folder, each as its tensors, so that one file at a time is in memory."""
    safe = _weight_files(folder, "model.safetensors")
    pickled = [] if safe else _weight_files(folder, "pytorch_model.bin")
    if not safe and not pickled:
        raise ModelError(f"{folder} has neither model.safetensors nor pytorch_model.bin, nor an index of either")
    yield from (_safe_tensors(file) for file in safe)
    for file in pickled:
        yield _pickled_tensors(file)


def _weight_files(folder: Path, name: str) -> list[Path]:
    index = folder / f"{name}.index.json"
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / each for each in sorted(set(names))]
    return [folder / name] if (folder / name).is_file() else []


def _safe_tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - safe_open is not iterable
            yield name, tensors.get_tensor(name)


def _pickled_tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{file} holds more than tensors, and loading it would run code: {error}") from None
    yield from tensors.items()


def _expected_shapes(native: PreTrainedConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(native)
    tied = set(model.all_tied_weights_keys) if native.tie_word_embeddings else set()
    return {name: each.shape for name, each in model.state_dict().items() if name not in tied}


def _check_shapes(family: str, converted: Tensors, expected: dict[str, torch.Size]) -> None:
    for name, tensor in converted.items():
        if tensor.shape != expected.get(name):
            raise ModelError(
                f"a {family} model has no tensor {name} of shape {list(tensor.shape)}; expected "
                f"{list(expected[name]) if name in expected else 'no such tensor'}"
            )


def _tokenizer_facts(folder: Path) -> dict[str, int]:
    names = (*_TOKENIZER_FILES, "merges.txt", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json")
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
