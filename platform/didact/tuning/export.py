"""The recipe of a sweep's best trial, or of another one, to train it anew at any length."""

import json
from pathlib import Path
from typing import Any

import yaml

from didact.errors import RunError
from didact.files import write_text
from didact.spec import FinetuneSpec, set_dotted, validate
from didact.tuning.results import read_results


def export_recipe(name: str, runs_dir: Path, output: Path, trial: str | None = None) -> FinetuneSpec:
    """Write the recipe of the best trial as YAML: the sweep's recipe with what the trial drew.

    Evaluation, registration and placement are those of the sweep's recipe; the name is the sweep's with `-best`.

    Args:
        name: of the sweep.
        runs_dir: folder that holds its folder.
        output: file to write; it must not exist.
        trial: name of another trial than the best.

    Raises:
        RunError: no such sweep or trial, the sweep has no results yet, or `output` exists.
    """
    folder = runs_dir / name
    results = read_results(folder)
    best = results.best.name if results.best else None
    wanted = trial or best
    found = next((each for each in results.trials if each.name == wanted), None)
    if found is None:
        known = ", ".join(each.name for each in results.trials)
        raise RunError(f"sweep {name!r} has no trial {wanted!r}; expected one of {known}")
    if output.exists():
        raise RunError(f"{output} exists; give another file")
    recipe: dict[str, Any] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["recipe"]
    if "adapter.method" in found.values:
        set_dotted(recipe, "adapter", {"method": found.values["adapter.method"]}, name)
    for path, value in found.values.items():
        set_dotted(recipe, path, value, name)
    recipe["name"] = f"{name}-best" if trial is None else f"{trial}-again"
    spec: FinetuneSpec = validate(FinetuneSpec, recipe, f"trial {wanted}")
    told = "" if found.metric is None else f": {results.metric} {found.metric:.6g} after {found.steps} steps"
    head = f"# Trial {wanted} of sweep {name}{told}.\n"
    values = spec.model_dump(mode="json", exclude_defaults=True)
    write_text(output, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return spec
