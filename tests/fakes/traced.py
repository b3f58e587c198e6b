"""A small world with a history: one run, a second that began with the adapter of the first, both registered."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.lineage import Records, keep_lineage
from didact.registry import ModelVersion, Registry, check_folder
from didact.registry.publish import publish_run
from didact.runs import Run, note_start
from didact.spec import RegisterSpec
from didact.tracking import default_uri
from tests.fakes.finished import finished_run
from tests.fakes.recipes import tiny_recipe, write_sums


@dataclass(frozen=True)
class History:
    """What there is."""

    folder: Path
    first: Run
    second: Run
    registry: Registry
    versions: tuple[ModelVersion, ModelVersion]

    @property
    def records(self) -> Records:
        return Records(self.folder / "runs", self.registry)


def make_history(folder: Path) -> History:
    """`first` is trained on sums.jsonl and is `sums:1`, in service; `second` goes on from it, on others.jsonl."""
    runs = folder / "runs"
    recipe: dict[str, Any] = {"training__steps": 2, "training__checkpoint_every": 2}
    first_spec = tiny_recipe(folder, name="first", **recipe)
    write_sums(folder / "others.jsonl", rows=40)
    terms = {"licence": "CC-BY-NC-4.0", "commercial": False}
    source = {"name": "others", "path": str(folder / "others.jsonl"), **terms}
    second_spec = tiny_recipe(folder, name="second", data__sources=[source], training__seed=5, **recipe)
    first, second = finished_run(first_spec, runs), finished_run(second_spec, runs)
    note_start(second, "sums@champion", "2 steps", check_folder(first.adapter).sha256)
    registry = Registry(default_uri(runs), runs / "mlartifacts")
    versions = []
    for run, spec, name, alias in ((first, first_spec, "sums", "champion"), (second, second_spec, "more", None)):
        _, version = publish_run(run, spec, RegisterSpec(name=name, alias=alias), None)
        keep_lineage(registry, version, run)
        versions.append(version)
    return History(folder, first, second, registry, (versions[0], versions[1]))
