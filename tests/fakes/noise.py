"""Adapters that were damaged on purpose, in folders that pass every check of bytes and shapes."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from didact.evaluation import Question
from didact.files import manifest, write_json


def with_noise(adapter: Path, folder: Path, layer: int, share: float = 3.0) -> Path:
    """A copy of an adapter with noise in one layer, `share` times as large as its weights, and a manifest that fits."""
    shutil.copytree(adapter, folder)
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    torch.manual_seed(0)
    for name, tensor in weights.items():
        if f"layers.{layer}." in name:
            weights[name] = tensor + share * max(float(tensor.std()), 0.1) * torch.randn_like(tensor)
    save_file(weights, file, metadata={"format": "pt"})
    record = json.loads((folder / "adapter.json").read_text())
    write_json(folder / "adapter.json", {**record, "files": manifest(folder, list(record["files"]))})
    return folder


def says_the_same(question: Question, text: str) -> bool:
    """A scorer: whether an answer is the expected one to the letter."""
    return text == question.expected
