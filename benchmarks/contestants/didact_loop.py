"""Our loop, whole or with some of its techniques left out.

    python didact_loop.py NAME WORK_FOLDER

`job.json` holds the recipe and, by NAME, the techniques and the bits of a quantized base; the report goes to
`NAME-RANK.json`.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from measure import Clock
from peft import PeftModel

from didact.models import compile_blocks, compute_dtype, load_base, use_packed_attention
from didact.preparation import prepare_data
from didact.spec import FinetuneSpec, QuantizationSpec, validate
from didact.training import CheckpointStore, Objective, StepReport, loop, train


class Ticks:
    """A callback that tells the clock of each step and keeps the losses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.losses: list[float] = []

    def on_start(self, start: int, num_steps: int) -> None:
        """The time before the first step."""
        self._clock.tick()

    def on_step(self, report: StepReport) -> None:
        """The time after each step."""
        self._clock.tick()
        self.losses.append(report.metrics["train/loss"])

    def close(self) -> None:
        """Nothing is open."""


def objective_with(techniques: list[str]) -> type[Objective]:
    """The objective without what is not named."""

    class Ablated(Objective):
        def __init__(self, model: torch.nn.Module, dtype: torch.dtype, device: torch.device | None = None) -> None:
            super().__init__(model, dtype, device)
            self._selects_positions &= "supervised" in techniques
            self._head = self._head if "chunked" in techniques else None

    return Ablated


def main() -> None:
    """Train, measure, report."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    job = json.loads((folder / "job.json").read_text())
    techniques = job["techniques"][name]
    torch.set_num_threads(job["threads"])
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    spec = validate(FinetuneSpec, job["recipe"], "benchmark")
    bits = job["bits"].get(name)
    model_spec = spec.model.model_copy(update={"quantization": QuantizationSpec(bits=bits) if bits else None})
    base = load_base(model_spec, shared=True)
    if "attention" in techniques:
        use_packed_attention(base, spec.tokens.max_length)
    model = PeftModel.from_pretrained(base, folder / "start", is_trainable=True)
    if "compile" in techniques:
        compile_blocks(model)
    prepared = prepare_data(spec)
    ticks = Ticks(Clock(job["tokens"], job["warm"]))
    loop.Objective = objective_with(techniques)  # the loop has no switch for what nobody should turn off
    train(
        model,
        prepared.loader(spec, packing="packing" in techniques, share_prefixes="prefixes" in techniques),
        spec.training,
        num_steps=prepared.num_steps,
        compute_dtype=compute_dtype(spec.model),
        checkpoints=CheckpointStore(Path(tempfile.mkdtemp(dir=folder)), keep=2, identity=name),
        callbacks=[ticks],
    )
    ticks._clock.report(folder, name, ticks.losses)


if __name__ == "__main__":
    main()
