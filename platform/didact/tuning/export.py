"""The recipe of a sweep's best trial, or of another one, to train it anew at any length."""

import json
from pathlib import Path
from typing import Any

import yaml

from didact.errors import RunError
from didact.files import write_text
from didact.spec import FinetuneSpec, set_dotted, validate
from didact.tuning.records import TrialResult
from didact.tuning.results import SweepResult, read_results


def export_recipe(name: str, runs_dir: Path, output: Path, trial: str | None = None) -> FinetuneSpec:
    """Write the recipe of the best trial as YAML: the sweep's recipe with what the trial drew.

    Of a trial that was run again with fresh seeds it is the recipe of those runs, as long as they were. Evaluation,
    registration and placement are those of the sweep's recipe; the name is the sweep's with `-best`.

    Args:
        name: of the sweep.
        runs_dir: folder that holds its folder.
        output: file to write; it must not exist.
        trial: name of another trial than the best, or of what confirmed trials were compared with, as `uniform`.

    Raises:
        RunError: no such sweep or trial, the sweep has no results yet, or `output` exists.
    """
    folder = runs_dir / name
    results = read_results(folder)
    best = results.best.name if results.best else None
    wanted = trial or best
    found = next((each for each in results.trials if each.name == wanted), None)
    again = results.confirmation.arm(wanted) if results.confirmation and wanted else None
    if found is None and again is None:
        compared = [arm.name for arm in results.confirmation.arms if not arm.trial] if results.confirmation else []
        known = ", ".join([*(each.name for each in results.trials), *compared])
        raise RunError(f"sweep {name!r} has no trial {wanted!r}; expected one of {known}")
    if output.exists():
        raise RunError(f"{output} exists; give another file")
    recipe: dict[str, Any] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["recipe"]
    values = again.draw if again else found.values if found else {}
    if "adapter.method" in values:
        set_dotted(recipe, "adapter", {"method": values["adapter.method"]}, name)
    for path, value in values.items():
        set_dotted(recipe, path, value, name)
    recipe["name"] = f"{name}-best" if trial is None else f"{trial}-again" if found else f"{name}-{trial}"
    spec: FinetuneSpec = validate(FinetuneSpec, recipe, f"trial {wanted}")
    lines = [f"Trial {wanted} of sweep {name}{_told(results, found)}." if found else f"{wanted} of sweep {name}."]
    if results.confirmation and wanted == results.confirmation.winner:
        lines.append(f"{results.confirmation.words}.")
    head = "".join(f"# {line}\n" for line in lines)
    plain = spec.model_dump(mode="json", exclude_defaults=True)
    write_text(output, head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    return spec


def _told(results: SweepResult, trial: TrialResult) -> str:
    return "" if trial.metric is None else f": {results.metric} {trial.metric:.6g} after {trial.steps} steps"
