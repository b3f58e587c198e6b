"""Which of a process's memory lies in mapped weight files, as Linux tells."""

import re
from pathlib import Path

import torch


def mapped_share(model: torch.nn.Module) -> float:
    """Of the bytes of a model's parameters, those that lie in mapped safetensors files."""
    mapped, parameters = _files(), list(model.parameters())
    inside = [each for each in parameters if _file_of(each, mapped)]
    return sum(each.nbytes for each in inside) / sum(each.nbytes for each in parameters)


def mapped_files(model: torch.nn.Module) -> set[Path]:
    """The files in which a model's parameters lie."""
    mapped = _files()
    return {file for each in model.parameters() if (file := _file_of(each, mapped))}


def file_memory(file: Path) -> dict[str, int]:
    """KiB by kind of this process's mappings of a file."""
    found: dict[str, int] = {}
    for mapping in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        if mapping.partition("\n")[0].endswith(str(file)):
            for kind, kib in re.findall(r"^(\w+):\s+(\d+) kB", mapping, re.MULTILINE):
                found[kind] = found.get(kind, 0) + int(kib)
    return found


def _files() -> list[tuple[int, int, Path]]:
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(".safetensors"):
            start, end = line.split()[0].split("-")
            found.append((int(start, 16), int(end, 16), Path(line.split(maxsplit=5)[5])))
    return found


def _file_of(tensor: torch.Tensor, mapped: list[tuple[int, int, Path]]) -> Path | None:
    return next((file for start, end, file in mapped if start <= tensor.data_ptr() < end), None)
