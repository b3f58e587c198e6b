"""Recipes that come with the package: what each says about itself, and how one is found."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from didact.errors import SpecError
from didact.spec import ADAPTER_METHODS, FinetuneSpec, load_spec, validate
from didact.spec.load import parse_mapping
from didact.spec.shipped import MACHINES, ShippedRecipe, find_recipe, shipped_recipes
from tests.conftest import ROOT

FILES = sorted(file.name for file in (ROOT / "jobs" / "recipes").iterdir())
RECIPES = shipped_recipes()


def spec_of(recipe: ShippedRecipe) -> FinetuneSpec:
    return validate(FinetuneSpec, parse_mapping(recipe.text, recipe.name), recipe.name)


def test_every_file_of_the_repository_is_shipped() -> None:
    assert sorted(f"{each.name}.yaml" for each in RECIPES) == FILES


def test_a_built_package_holds_them() -> None:
    setuptools = pytest.importorskip("setuptools")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    (where,) = settings["packages"]["find"]["where"]
    assert "didact.recipes" in setuptools.find_namespace_packages(str(ROOT / where))
    assert all(any(fnmatch(file, each) for each in settings["package-data"]["*"]) for file in FILES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_named_like_its_file_and_says_what_it_is_for(recipe: ShippedRecipe) -> None:
    spec = spec_of(recipe)
    assert spec.name == recipe.name, "another run's folder would be resumed"
    assert recipe.purpose.endswith(".") and len(recipe.purpose) <= 55
    on_gpu = spec.placement.device == "gpu"
    assert on_gpu == ("A100" in recipe.machine)
    if recipe.machine == "8 A100s":
        assert spec.placement.num_workers == 8


def test_the_readme_links_each_beside_what_it_runs_on() -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "(jobs/recipes/" in line]
    linked = {row.split("|")[1].strip(): re.findall(r"\[(\w+)\]\(jobs/recipes/(\w+)\.yaml\)", row) for row in rows}
    for machine in MACHINES:
        assert linked[machine] == [(each.name, each.name) for each in RECIPES if each.machine == machine]


def test_purposes_tell_recipes_apart() -> None:
    purposes = [each.purpose for each in RECIPES]
    assert sorted(set(purposes)) == sorted(purposes)
    assert {each.machine for each in RECIPES} == set(MACHINES)


def test_rates_are_left_to_the_method_or_are_near_it() -> None:
    for recipe in RECIPES:
        spec = spec_of(recipe)
        stated = parse_mapping(recipe.text, recipe.name)["training"].get("learning_rate")
        if stated is not None:
            assert spec.adapter.method == "lora" and 1e-5 < spec.training.learning_rate < 5e-3
    assert {"lora", "adalora", "prefix", "bottleneck", "full"} <= {spec_of(each).adapter.method for each in RECIPES}
    assert "lora" in ADAPTER_METHODS


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("temperatur-mixture", "did you mean 'temperature_mixture'"),
        ("qlora", "'qlora_4bit'"),
        ("moss", "did you mean 'alpaca_cot_moss'"),
        ("", "named ''; `didact recipes` lists them"),
        ("zzz", "named 'zzz'; `didact recipes` lists them"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(SpecError, match="no recipe is named") as refused:
        find_recipe(name)
    assert nearest in str(refused.value)


def test_a_name_in_place_of_a_file_is_understood() -> None:
    with pytest.raises(SpecError, match="lora does not exist; `didact init lora` writes the recipe of that name"):
        load_spec(FinetuneSpec, "lora")


def test_hyphens_are_as_good_as_underscores() -> None:
    assert find_recipe("Elastic-Spot").name == "elastic_spot"


@pytest.mark.parametrize(
    "head", ["name: x\n", "# For what?\nname: x\n", "# For what.\n# Runs on: mainframe\nname: x\n"]
)
def test_a_file_without_its_first_lines_is_refused(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare.yaml").write_text(head, encoding="utf-8")
    monkeypatch.setattr("didact.spec.shipped._FOLDER", tmp_path)
    with pytest.raises(SpecError, match=r"bare\.yaml must begin with .*laptop, one A100"):
        shipped_recipes()
