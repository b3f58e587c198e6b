"""Weight files of a model folder, read one at a time and written one at a time."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from didact.errors import ModelError
from didact.files import write_json

_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"


def read_shards(folder: Path) -> Iterator[Iterator[tuple[str, torch.Tensor]]]:
    """The weight files of a folder, each as its tensors, so that one file at a time is in memory.

    Raises:
        ModelError: no weights there, or a pickle that holds more than tensors.
    """
    safe = _files(folder, "model.safetensors")
    pickled = [] if safe else _files(folder, "pytorch_model.bin")
    if not safe and not pickled:
        raise ModelError(f"{folder} has neither model.safetensors nor pytorch_model.bin, nor an index of either")
    yield from (_safe_tensors(file) for file in safe)
    for file in pickled:
        yield _pickled_tensors(file)


def check_weights(folder: Path) -> None:
    """Nothing, where a folder's safetensors files are whole and hold every tensor of its index.

    Headers are read and file sizes compared with them, so it takes milliseconds.

    Raises:
        ModelError: no weights, a file that is missing or cut off, or a tensor that is in no file.
    """
    held: set[str] = set()
    try:
        files = _files(folder, "model.safetensors")
        for file in files:
            held |= _held(file)
        index = folder / _INDEX
        expected = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"]) if index.is_file() else held
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"the weights in {folder} cannot be read: {error}") from error
    if not held:
        raise ModelError(f"{folder} holds no weights")
    if lost := sorted(expected - held):
        raise ModelError(f"{folder} lacks {len(lost)} tensors of its index, such as {lost[0]}")


def _held(file: Path) -> set[str]:
    try:
        with safe_open(file, framework="pt") as tensors:
            return set(tensors.keys())
    except SafetensorError as error:
        with file.open("rb") as opened:
            pointer = opened.read(len(_POINTER)) == _POINTER
        reason = "a Git LFS pointer, run `git lfs pull`" if pointer else f"{error}; {file.stat().st_size:,} bytes"
        raise ValueError(f"{file.name}: {reason}") from error


class ShardWriter:
    """Writes tensors into numbered safetensors files with an index, holding at most one file's worth in memory.

    Args:
        folder: an existing folder.
        shard_bytes: a file is closed before it would grow past this.
    """

    def __init__(self, folder: Path, shard_bytes: float) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._held: dict[str, torch.Tensor] = {}
        self._shards: list[list[str]] = []
        self._total = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Write, now or later, one tensor."""
        held = sum(each.nbytes for each in self._held.values())
        if self._held and held + tensor.nbytes > self._shard_bytes:
            self._flush()
        self._held[name] = tensor.contiguous()
        self._total += tensor.nbytes

    def close(self) -> None:
        """Write what is left, and the index; files get the names that every loader knows."""
        self._flush()
        count = len(self._shards)
        if count == 1:
            self._part(1).rename(self._folder / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards, start=1):
            file = f"model-{number:05d}-of-{count:05d}.safetensors"
            self._part(number).rename(self._folder / file)
            weight_map |= dict.fromkeys(names, file)
        write_json(self._folder / _INDEX, {"metadata": {"total_size": self._total}, "weight_map": weight_map})

    def _flush(self) -> None:
        if self._held:
            self._shards.append(list(self._held))
            save_file(self._held, self._part(len(self._shards)), {"format": "pt"})
            self._held = {}

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.safetensors"


def _files(folder: Path, name: str) -> list[Path]:
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
