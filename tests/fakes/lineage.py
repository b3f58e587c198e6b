"""What two runs must share to be the same run."""

from typing import TYPE_CHECKING

from safetensors.torch import load_file

from didact.files import read_jsonl
from didact.runs import Run
from didact.tracking import effective_records

if TYPE_CHECKING:
    from tests.fakes.loops import Loop

Lineage = list[tuple[int, str | None, tuple[str, ...]]]


def lineage(run: Run) -> Lineage:
    """Step, loss to the bit and sample ids of every step that counts."""
    return [(record.step, record.loss_hex, tuple(record.sample_ids or ())) for record in effective_records(run.steps)]


def same_weights(one: Run, other: Run) -> bool:
    """Whether two runs' adapters are equal to the bit."""
    first, second = (load_file(run.adapter / "adapter_model.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(bool((first[name] == second[name]).all()) for name in first)


def is_as_alone(run: Run, loop: "Loop") -> bool:
    """Whether losses and adapter are, to the bit, those of the plain loop."""
    saved = load_file(run.adapter / "adapter_model.safetensors")
    weights = {name.replace(".default", ""): each for name, each in loop.weights.items()}
    same = saved.keys() == weights.keys() and all(bool((saved[name] == each).all()) for name, each in weights.items())
    return same and lineage(run) == loop.lineage


def executed(run: Run) -> list[int]:
    """Every step as it was executed, repeated ones included."""
    return [record["step"] for record in read_jsonl(run.steps)]


def interruptions(run: Run) -> list[str]:
    """Classes of a run's restarts."""
    return [record["class"] for record in read_jsonl(run.interruptions)]
