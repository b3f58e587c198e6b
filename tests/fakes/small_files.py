"""The smallest file of each kind that is accepted."""

from typing import Any

from didact.spec import EvaluateSpec, FinetuneSpec, ServeSpec, Spec, SweepSpec

RECIPE: dict[str, Any] = {
    "name": "small",
    "data": {"sources": [{"name": "sums", "path": "hf:owner/sums"}]},
    "training": {"steps": 100},
}
FILES: dict[type[Spec], dict[str, Any]] = {
    FinetuneSpec: RECIPE,
    SweepSpec: {"name": "s", "recipe": "r.yaml", "space": {"adapter.r": {"choice": [4, 8]}}},
    ServeSpec: {},
    EvaluateSpec: {"evaluation": {}},
}
