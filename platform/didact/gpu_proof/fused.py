"""Trials trained together on one base, beside each of them alone."""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from didact.gpu_proof.checks import Check, Outcome, farthest
from didact.gpu_proof.numerics import CPU
from didact.gpu_proof.subjects import RandomSteps, random_base, tiny_config
from didact.gpu_proof.training import Reports, run_steps
from didact.models import attach_adapter, use_packed_attention
from didact.spec import FinetuneSpec, LoraSpec, QuantizationSpec, validate
from didact.training import CheckpointStore
from didact.training.fused import FusedTrial, FusedTrials

_STEPS = 4
_LENGTHS = (((5, 90, 33), (61,)), ((40, 7), (120, 19, 8)), ((17,), (150,)))
"""Of the micro-batches of each trial."""
_RATES = ((2, 5e-3), (8, 2e-2), (16, 1e-2))
"""Rank and learning rate of each; such that what one learned moves its losses by a hundredth."""
# float32 differs by the order of sums; bfloat16 also rounds the products of other rows otherwise.
_TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1e-3}


def checks() -> Iterator[Check]:
    """All of this module."""
    for dtype, bits in ((torch.float32, None), (torch.bfloat16, None), (torch.bfloat16, 4)):
        name = str(dtype).removeprefix("torch.") + (f", {bits} bits" if bits else "")
        yield Check(
            "fused", f"losses of three trials on one base, {name}", partial(_losses, dtype=dtype, bits=bits, most=None)
        )
    yield Check(
        "fused",
        "the same in passes of 100 tokens, float32",
        partial(_losses, dtype=torch.float32, bits=None, most=100),
    )


def fused_spec(name: str, r: int, rate: float, num_steps: int, dtype: torch.dtype, bits: int | None) -> FinetuneSpec:
    """A recipe whose base and data are given apart from it."""
    values: dict[str, Any] = {
        "name": name,
        "model": {"dtype": str(dtype).removeprefix("torch."), "quantization": {"bits": bits} if bits else None},
        "adapter": {"r": r, "dropout": 0.0, "target_modules": "all-linear"},
        "data": {"sources": [{"name": "none", "path": "none.jsonl"}]},
        "training": {
            "steps": num_steps,
            "learning_rate": rate,
            "schedule": "constant",
            "warmup_share": 0.0,
            "checkpoint_every": num_steps,
        },
        "placement": {"num_workers": 1},
    }
    spec: FinetuneSpec = validate(FinetuneSpec, values, "proof")
    return spec


def together(
    group: FusedTrials, specs: Sequence[FinetuneSpec], steps: Sequence[RandomSteps], folder: Path
) -> list[Reports]:
    """Train all of them in `group`; what each reports."""
    reports = [Reports() for _ in specs]
    for spec, rows, kept in zip(specs, steps, reports, strict=True):
        store = CheckpointStore(folder / spec.name, keep=2, identity=spec.name)
        num_steps = spec.training.steps or 0
        group.join(FusedTrial(spec.name, spec, rows, num_steps, store, [kept]))  # type: ignore[arg-type]
    group.run()
    return reports


def _losses(device: torch.device, dtype: torch.dtype, bits: int | None, most: int | None) -> Outcome:
    """The largest relative difference of any step's loss."""
    quantization = QuantizationSpec(bits=bits) if bits else None
    specs = [fused_spec(f"r{r}", r, rate, _STEPS, dtype, bits) for r, rate in _RATES]
    steps = [RandomSteps(lengths, accumulate=2) for lengths in _LENGTHS]

    def base() -> Any:
        made = random_base(tiny_config(), device, dtype, quantization, drawn_on=CPU)
        use_packed_attention(made, 200)
        return made

    with tempfile.TemporaryDirectory() as folder:
        reports = together(FusedTrials(base(), specs[0], device, max_tokens=most), specs, steps, Path(folder))
    furthest = 0.0
    for spec, rows, kept in zip(specs, steps, reports, strict=True):
        assert isinstance(spec.adapter, LoraSpec)
        model = attach_adapter(base(), spec.adapter, seed=spec.training.seed, base_name="random").to(device)
        alone = run_steps(model, rows, _STEPS, dtype, spec.adapter, rate=spec.training.learning_rate)
        wanted, found = ([each.metrics["train/loss"] for each in of] for of in (alone, kept.steps))
        furthest = max(furthest, farthest(found, wanted))
    return Outcome(furthest, _TOLERANCES[dtype])
