"""A recipe on a tiny base and a small file of sums, for tests that train."""

import json
from pathlib import Path
from typing import Any

from didact.spec import FinetuneSpec, validate
from tests.fakes.models import save_tiny_base


def write_sums(path: Path, rows: int = 60) -> Path:
    """An Alpaca JSON-lines file of additions."""
    lines = [
        json.dumps({"instruction": f"Add {i} and {i + 3}.", "input": "", "output": f"{2 * i + 3} it is"})
        for i in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tiny_recipe(folder: Path, **changes: Any) -> FinetuneSpec:
    """Ten steps of LoRA on a two-layer Llama in float32.

    Args:
        folder: where base and data are written.
        changes: dotted paths with `__` for the dot, such as `training__steps=4`.
    """
    base = folder / "base"
    if not base.exists():
        save_tiny_base(base)
        write_sums(folder / "sums.jsonl")
    values: dict[str, Any] = {
        "name": "tiny",
        "model": {"base": str(base), "dtype": "float32"},
        "adapter": {"r": 4, "alpha": 8, "dropout": 0.1},
        "data": {"sources": [{"name": "sums", "path": str(folder / "sums.jsonl"), "held_out_rows": 8}]},
        "tokens": {"max_length": 128},
        "training": {
            "steps": 10,
            "learning_rate": 1e-2,
            "global_batch_size": 8,
            "micro_batch_size": 2,
            "checkpoint_every": 4,
            "evaluate_every": 5,
        },
        "tracking": {"mlflow": False},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return validate(FinetuneSpec, values, "tiny recipe")
