"""`didact plan` of the recipes that name the hub, as they are written: bases of the same families stand in the hub's
cache without weights, and the cards' made-up examples are the data."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from didact.cli import app
from didact.datasets.catalog import PREFIX, find_card
from didact.datasets.samples import write_example
from didact.spec import FinetuneSpec, validate
from didact.spec.load import parse_mapping
from didact.spec.shipped import ShippedRecipe, shipped_recipes
from tests.conftest import ROOT
from tests.fakes.snapshots import cache_snapshot

FAMILIES = {
    "huggyllama/llama-7b": "llama",
    "THUDM/chatglm-6b": "chatglm-6b",
    "bigscience/bloomz-7b1-mt": "bloom",
    "fnlp/moss-moon-003-sft": "moss",
    "internlm/internlm-7b": "internlm",
    "Qwen/Qwen2.5-7B": "qwen2",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2",
    "Qwen/Qwen2.5-72B-Instruct": "qwen2",
}


def spec_of(recipe: ShippedRecipe) -> FinetuneSpec:
    return validate(FinetuneSpec, parse_mapping(recipe.text, recipe.name), recipe.name)


HUB = [each for each in shipped_recipes() if spec_of(each).model.base in FAMILIES]


def test_every_base_of_the_hub_is_planned() -> None:
    assert {spec_of(each).model.base for each in HUB} == set(FAMILIES)
    elsewhere = {spec_of(each).model.base for each in shipped_recipes()} - set(FAMILIES)
    assert elsewhere == {"smollm2-135m-instruct", "bases/wide"}


@pytest.mark.parametrize("recipe", HUB, ids=lambda recipe: recipe.name)
def test_a_plan_needs_no_weights(recipe: ShippedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(recipe)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    cache_snapshot(tmp_path / "hub", spec.model.base, FAMILIES[spec.model.base])
    changes = ["training.global_batch_size=8"]  # examples are a few rows
    for source in spec.data.sources:
        folder = tmp_path / "raw" / source.name
        write_example(find_card(source.path.removeprefix(PREFIX)), folder)
        changes += [f"data.sources.{source.name}.options.root={folder}", f"data.sources.{source.name}.held_out_rows=0"]
    file = ROOT / "jobs" / "recipes" / f"{recipe.name}.yaml"
    planned = CliRunner().invoke(app, ["plan", str(file), *changes])
    assert planned.exit_code == 0, planned.output + str(planned.exception)
    assert f"base       {spec.model.base}" in planned.output and "GiB a worker" in planned.output
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("*.bin"))
