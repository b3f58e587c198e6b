"""One training run in the calling process, and the same in two gloo workers: what tests of sharding compare."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from didact.cluster.worker import held_out_losses
from didact.files import write_json
from didact.models import attach_adapter, base_fingerprint, load_base, save_adapter, save_model
from didact.models.vocabulary.facts import VOCABULARY_FILE
from didact.preparation import prepare_data
from didact.spec import FullSpec
from didact.tokens import Sample, pack
from didact.training import CheckpointStore, Objective, StepReport, World, train, whole_weights
from didact.training.sharding import shard
from tests.fakes.models import VOCAB, save_tiny_base
from tests.fakes.recipes import tiny_recipe


@dataclass(frozen=True, slots=True)
class Case:
    """A recipe and where its run lies."""

    name: str
    changes: dict[str, Any]
    """Of `tiny_recipe`."""
    compute: torch.dtype = torch.float32
    stop_after: int | None = None
    """Step after which the run is killed; a later case of the same name resumes it."""
    base: str | None = None
    """A folder beside the run's; None for the recipe's own."""


class Record:
    """Keeps each step's losses; may stop the loop."""

    def __init__(self, stop_after: int | None) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self._stop_after = stop_after

    def on_start(self, start: int, num_steps: int) -> None:
        """Nothing."""

    def on_step(self, report: StepReport) -> None:
        """Keep what is a pure function of the recipe."""
        self.steps[report.step] = {
            name: value for name, value in report.metrics.items() if name != "train/tokens_per_second"
        }
        if report.step == self._stop_after:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Nothing."""


def run_case(folder: Path, case: Case) -> None:
    """Train in this process or group; worker 0 writes `<name>/steps.json` and the adapter."""
    changes = case.changes | ({"model__base": str(folder / case.base)} if case.base else {})
    spec, world, out = tiny_recipe(folder, **changes), World.current(), folder / case.name
    prepared = prepare_data(spec)
    base = load_base(spec.model)
    model = attach_adapter(
        base,
        spec.adapter,
        seed=0,
        base_name="tiny",
        gradient_checkpointing=spec.training.gradient_checkpointing,
        num_steps=prepared.num_steps,
        unquantized=lambda: load_base(spec.model.model_copy(update={"quantization": None})),
    )
    record = Record(case.stop_after)
    cut = spec.training.sharding.cuts_weights
    try:
        train(
            model,
            prepared.loader(spec),
            spec.training,
            num_steps=prepared.num_steps,
            compute_dtype=case.compute,
            checkpoints=CheckpointStore(out / "checkpoints", keep=2, identity="tiny"),
            adapter=spec.adapter,
            callbacks=[record],
            evaluate=lambda trained: held_out_losses(trained, prepared, world, packing=spec.packing, lockstep=cut),
        )
    except KeyboardInterrupt:
        return
    with whole_weights(model, world):
        if world.rank == 0:
            (out / "steps.json").write_text(json.dumps(record.steps))
            _save(model, spec, out / "adapter")


def save_wide_base(folder: Path) -> None:
    """A base with one table for input and output embeddings, of which the rows of digits and signs count as new."""
    save_tiny_base(folder, "gemma")
    write_json(folder / VOCABULARY_FILE, {"first_id": 32, "num_tokens": 32})


def run_cases(folder: str, cases: list[Case]) -> None:
    """For `run_workers`: one start of processes for many runs."""
    for case in cases:
        try:
            run_case(Path(folder), case)
        except Exception as error:
            raise RuntimeError(f"case {case.name!r}") from error


def break_gradient(folder: Path, strategy: str, name: str) -> None:
    """In every worker: a good step, then one whose gradient is NaN; worker 0 writes what came of both to `name`."""
    spec = tiny_recipe(folder, training__sharding={"strategy": strategy}, adapter__dropout=0.0)
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="tiny")
    sharding = shard(model, spec.training, spec.adapter, World.current())
    ids = torch.arange(12).view(1, -1)
    norms, states = [], []
    for factor in (1.0, math.nan):
        loss = sharding.model(input_ids=ids, labels=ids).loss * factor
        sharding.backward(loss)
        sharding.sum_gradients(loss.detach())
        norms.append(sharding.update(1e-2, max_norm=1.0))
        sharding.clear_gradients()
        states.append(sharding.state())
    if World.current().rank == 0:
        changed = [key for key, weight in states[0].weights.items() if not torch.equal(weight, states[1].weights[key])]
        (folder / name).write_text(json.dumps({"norms": [str(norm) for norm in norms], "changed": changed}))


class _Widest(TorchDispatchMode):
    """Remembers the most elements of a tensor that has the vocabulary as one of its sides."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for each in tree_leaves(output):
            if isinstance(each, torch.Tensor) and VOCAB in each.shape:
                self.elements = max(self.elements, each.numel())
        return output


def watch_logits(folder: Path, strategy: str, name: str) -> None:
    """In every worker: loss and gradient of a long row, from hidden states and from logits; worker 0 writes both.

    With them the widest tensor of each in positions: its elements over the vocabulary.
    """
    spec = tiny_recipe(folder, training__sharding={"strategy": strategy}, adapter__dropout=0.0)
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="tiny")
    sharding = shard(model, spec.training, spec.adapter, World.current())
    batch = pack([Sample(each, each >= 0) for each in torch.arange(600, dtype=torch.int32).view(3, 200).numpy() % 250])
    objective, found = Objective(sharding.model, torch.float32, sharding.device), []
    for _ in range(2):
        with _Widest() as widest, patch("didact.models.footprint.logits.LOGITS_AT_ONCE", 100 * VOCAB):
            loss = objective.summed_loss(batch) / 600
        sharding.backward(loss)
        sharding.sum_gradients(loss.detach().view(1))
        norm = sharding.update(0.0, max_norm=1.0)
        sharding.clear_gradients()
        found.append({"loss": loss.item(), "norm": norm, "positions": widest.elements / VOCAB})
        objective._head = None
    if World.current().rank == 0:
        (folder / name).write_text(json.dumps(found))


def steps(folder: Path, name: str) -> dict[int, dict[str, float]]:
    """Metrics of each step of a finished case."""
    return {int(step): metrics for step, metrics in json.loads((folder / name / "steps.json").read_text()).items()}


def adapter_weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The adapter of a finished case."""
    return load_file(folder / name / "adapter" / "adapter_model.safetensors")


def _save(model: Any, spec: Any, folder: Path) -> None:
    folder.mkdir()
    if isinstance(spec.adapter, FullSpec):
        save_model(model, folder)
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    else:
        save_adapter(
            model,
            folder,
            base="tiny",
            base_fingerprint=base_fingerprint(spec.model),
            method=spec.adapter.method,
        )
