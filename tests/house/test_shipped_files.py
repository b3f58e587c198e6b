"""Every YAML in the repository loads with the schema it is written for."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from didact.spec import (
    EvaluateSpec,
    FinetuneSpec,
    ServeSpec,
    StudySpec,
    SweepSpec,
    load_spec,
    read_mapping,
    set_dotted,
    validate,
)
from didact.spec.search.space import Choice, Derived, Grid, LogUniform, Mixture, RandInt, Simplex, Uniform
from didact.studies import load_study
from didact.tuning import load_search

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "jobs" / "recipes").rglob("*.y*ml"))
EVALUATIONS = sorted((ROOT / "jobs" / "evaluations").glob("*.yaml"))
SPACES = sorted((ROOT / "tune_spaces").rglob("*.y*ml"))
STUDIES = sorted((ROOT / "studies").rglob("*.y*ml"))
SERVE_FILES = sorted((ROOT / "serve").rglob("*.y*ml"))


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def recipe_of(sweep: SweepSpec, file: Path) -> Path:
    """The recipe a search names, relative to the search file or to the root."""
    (found,) = {path.resolve() for path in (file.parent / sweep.recipe, ROOT / sweep.recipe) if path.is_file()}
    return found


def values_of(distribution: Any) -> Iterator[Any]:
    """The outermost values a distribution can draw."""
    match distribution:
        case Choice(choice=values) | Grid(grid=values):
            yield from values
        case Uniform(uniform=bounds) | LogUniform(loguniform=bounds) | RandInt(randint=bounds):
            yield from bounds
        case _:
            raise AssertionError(f"no values known for {distribution!r}")


def test_there_is_something_to_check() -> None:
    assert RECIPES
    assert EVALUATIONS
    assert SPACES
    assert SERVE_FILES


def test_what_makes_a_folder_below_the_runs_has_a_name_of_its_own() -> None:
    names = [read_mapping(file)["name"] for file in (*RECIPES, *SPACES, *STUDIES)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("file", RECIPES, ids=name_of)
def test_recipe_loads(file: Path) -> None:
    load_spec(FinetuneSpec, file)


@pytest.mark.parametrize("file", EVALUATIONS, ids=name_of)
def test_evaluation_loads(file: Path) -> None:
    load_spec(EvaluateSpec, file)


def test_recipes_have_names_of_their_own() -> None:
    names = [name for file in RECIPES if (name := read_mapping(file).get("name"))]
    assert sorted(names) == sorted(set(names)), "the same name would resume another recipe's run"


@pytest.mark.parametrize("file", SPACES, ids=name_of)
def test_search_fits_its_recipe(file: Path) -> None:
    sweep = load_spec(SweepSpec, file)
    recipe = recipe_of(sweep, file)
    fixed = list(sweep.overrides.items())
    for path, distribution in sweep.space.items():
        if isinstance(distribution, Simplex | Mixture | Derived):
            continue  # `load_search` below checks draws of these
        for value in values_of(distribution):
            trial = read_mapping(recipe)
            for key, given in [*fixed, (path, value)]:
                set_dotted(trial, key, given, name_of(file))
            validate(FinetuneSpec, trial, f"{name_of(file)} with {path}={value}")
    load_search(sweep, file)


@pytest.mark.parametrize("file", SPACES, ids=name_of)
def test_search_stops_on_a_metric_that_trials_report(file: Path) -> None:
    sweep = load_spec(SweepSpec, file)
    trial = read_mapping(recipe_of(sweep, file))
    for key, value in sweep.overrides.items():
        set_dotted(trial, key, value, name_of(file))
    spec = validate(FinetuneSpec, trial, name_of(file))
    if sweep.metric.startswith("eval/"):
        assert spec.training.evaluate_every, "no held-out loss is measured during training"
        assert any(source.held_out_rows for source in spec.data.sources), "no source sets rows aside"


@pytest.mark.parametrize("file", SERVE_FILES, ids=name_of)
def test_serve_file_loads(file: Path) -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    assert config.applications
    for application in config.applications:
        validate(ServeSpec, application.args, f"{name_of(file)}, application {application.name}, args")
        module, attribute = application.import_path.split(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_a_misspelt_path_of_a_search_would_be_found(tmp_path: Path) -> None:
    search = tmp_path / "space.yaml"
    recipe = ROOT / "jobs" / "recipes" / "demo.yaml"
    search.write_text(f"name: x\nrecipe: {recipe}\nspace:\n  adapter.rnk: {{choice: [4, 8]}}\n")
    trial = read_mapping(recipe)
    (path,) = load_spec(SweepSpec, search).space
    set_dotted(trial, path, 4, "space.yaml")
    with pytest.raises(ValueError, match=r"adapter\.rnk: unknown key"):
        validate(FinetuneSpec, trial, "space.yaml")


@pytest.mark.parametrize("file", STUDIES, ids=name_of)
def test_every_cell_of_a_study_can_be_run(file: Path) -> None:
    study = load_study(load_spec(StudySpec, file), file)
    assert len(study.cells) == study.spec.num_cells and study.spec.name == file.stem
