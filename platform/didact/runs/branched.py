"""A run that goes on from a checkpoint of another one, whose recipe is the same up to there."""

import shutil
from typing import Any

from didact.errors import RunError
from didact.files import append_jsonl, new_folder, read_jsonl, write_text
from didact.runs.continued import note_branch
from didact.runs.run import Run, differences, identity
from didact.spec import FinetuneSpec, to_json


def branch(donor: Run, run: Run, spec: FinetuneSpec, step: int) -> None:
    """Make a run that goes on from a checkpoint of another run; it is then what its recipe alone would have trained.

    That holds since nothing that decides a step depends on what the recipe says of later ones.

    Args:
        donor: the other run; nothing may be at work on it.
        run: to be made; left as it is where it is there.
        spec: its recipe, which states `training.steps`.
        step: of the checkpoint.

    Raises:
        RunError: the two recipes differ before that step, or the donor has no such checkpoint.
    """
    if run.recipe.is_file():
        return
    if changed := differences(_until(donor.spec(), step), _until(spec, step)):
        listed = "\n".join(f"  - {line}" for line in changed)
        raise RunError(
            f"run {spec.name!r} cannot go on from step {step} of {donor.name!r}, which differ before it:\n{listed}"
        )
    checkpoint = donor.checkpoints / f"step-{step:08d}"
    if not checkpoint.is_dir():
        raise RunError(f"run {donor.name!r} has no checkpoint of step {step}")
    with new_folder(run.path) as scratch:
        made = Run(scratch)
        shutil.copytree(checkpoint, made.branch / checkpoint.name)
        if donor.start.is_dir():
            shutil.copytree(donor.start, made.start)
        for record in read_jsonl(donor.steps):
            if record["step"] <= step:
                append_jsonl(made.steps, record)
        note_branch(made, donor.name, step, spec.training.length)
        write_text(made.recipe, to_json(spec))


def _until(spec: FinetuneSpec, step: int) -> dict[str, Any]:
    """What decides the steps before `step`."""
    steps = spec.training.steps
    if steps is None:
        raise RunError(f"run {spec.name!r} must state training.steps to go on from a checkpoint of another run")
    values = {**identity(spec), "name": ""}
    values["training"] |= {
        "steps": steps,
        "changes": [each for each in values["training"]["changes"] if each["after"] < step],
    }
    edges = [0.0, *(stage["until"] for stage in values["data"]["curriculum"])]
    begun = [stage for stage, begins in zip(values["data"]["curriculum"], edges, strict=False) if begins * steps < step]
    values["data"]["curriculum"] = begun
    return values
