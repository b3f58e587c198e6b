"""An estimate, and those that were worked out before. Torch is not loaded for these."""

import importlib.metadata
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from didact.devices import processor, sees_gpu, this_machine
from didact.env import cache_dir
from didact.files import fingerprint, sha256_file, sha256_text, write_json
from didact.models.base.description import base_description
from didact.spec import FinetuneSpec

_LIBRARIES = ("torch", "transformers", "peft")
_DECISIVE = {"model", "adapter", "tokens", "training", "packing", "placement"}


@dataclass(frozen=True, slots=True)
class Footprint:
    """An estimate for one worker, in GiB on the device that computes."""

    num_parameters: int
    num_trainable: int
    weights_gib: float
    """The base as it is held, and the adapter."""
    gradients_gib: float
    """Those that do not take the place of activations; a step's second forward pass finds all of them there."""
    optimizer_gib: float
    """Both moments of AdamW; with DeepSpeed also its own copy of the trained weights."""
    activations_gib: float
    """Kept for the backward pass, with what one block needs for a moment."""
    logits_gib: float
    """With their gradient, of as many positions as are computed at once."""
    overhead_gib: float
    flops: float
    """Arithmetic of one forward and backward pass over the load."""
    left_out: tuple[str, ...] = ()
    """What gets no adapter though all linear layers were asked for, in words."""
    unpacked: str | None = None
    """What quantization leaves in full precision, in words."""

    @property
    def trainable_share(self) -> float:
        """Trained parameters / all parameters."""
        return self.num_trainable / self.num_parameters

    @property
    def training_state_gib(self) -> float:
        """Gradients and optimizer."""
        return self.gradients_gib + self.optimizer_gib

    @property
    def total_gib(self) -> float:
        """The sum of the parts."""
        return self.weights_gib + self.training_state_gib + self.activations_gib + self.logits_gib + self.overhead_gib

    def seconds(self, flops_per_second: float) -> float:
        """Time of one forward and backward pass on a device of that speed."""
        return self.flops / flops_per_second


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
        return Footprint(**json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
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
