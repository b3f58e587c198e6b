"""Estimates that were worked out before, found again without torch."""

import importlib.metadata
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from didact.devices import processor, sees_gpu, this_machine
from didact.env import cache_dir
from didact.files import fingerprint, sha256_file, sha256_text, write_json
from didact.models.base.description import base_description
from didact.models.footprint.footprint import Footprint
from didact.spec import FinetuneSpec

_LIBRARIES = ("torch", "transformers", "peft")
_DECISIVE = {"model", "adapter", "tokens", "training", "packing", "placement"}


def footprint_of(
    spec: FinetuneSpec,
    tokens_per_micro_batch: int,
    supervised_share: float,
    *,
    sample_tokens: int | None = None,
    on_cpu: bool = True,
) -> Footprint:
    """What `estimate_footprint` says, from the cache where it was asked the same before on such a machine.

    Args:
        spec: the recipe.
        tokens_per_micro_batch: tokens of one forward pass.
        supervised_share: share of them that is learned.
        sample_tokens: mean length of a sample; None: the pass is one sample.
        on_cpu: where the workers compute.

    Raises:
        ModelError: see `estimate_footprint`.
    """
    asked = {
        "load": [tokens_per_micro_batch, supervised_share, sample_tokens, on_cpu],
        "recipe": spec.model_dump(mode="json", include=_DECISIVE),
        "base": sha256_file(base_description(spec.model) / "config.json"),
        "machine": [processor(), str(this_machine().gpus) if sees_gpu() else ""],
        "code": [*(importlib.metadata.version(name) for name in _LIBRARIES), _code()],
    }
    place = cache_dir() / "footprints" / f"{fingerprint(asked)}.json"
    try:
        known: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        return Footprint(**{**known, "left_out": tuple(known["left_out"])})
    except (OSError, ValueError, TypeError, LookupError):
        pass  # not asked before, or not whole
    from didact.models.footprint.estimate import estimate_footprint

    found = estimate_footprint(
        spec, tokens_per_micro_batch, supervised_share, sample_tokens=sample_tokens, on_cpu=on_cpu
    )
    write_json(place, asdict(found))
    return found


@cache
def _code() -> str:
    """Digest of what estimates: the code of this room, whatever version it says it is."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return sha256_text("".join(sha256_file(file) for file in files))
