"""A mapping changes a section and does not take its place, wherever changes are given."""

from pathlib import Path
from typing import Any

import pytest

from didact.notebook.settings import recipe as python_recipe
from didact.spec import FinetuneSpec, SweepSpec, load_spec, validate
from didact.spec.load import merge
from didact.tuning.search import load_search

RECIPE = """
name: merged
adapter: {method: lora, r: 4, alpha: 9}
data:
  sources:
    - {name: sums, path: "reasoning-gym:chain_sum", held_out_rows: 4, options: {seed: 3}}
training: {steps: 5, global_batch_size: 6, micro_batch_size: 3, learning_rate: 1e-3, evaluate_every: 2}
"""


@pytest.fixture()
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "merged.yaml"
    file.write_text(RECIPE)
    return file


def by_command_line(recipe: Path, path: str, value: Any) -> FinetuneSpec:
    return load_spec(FinetuneSpec, recipe, [f"{path}={value}"])


def by_sweep(recipe: Path, path: str, value: Any) -> FinetuneSpec:
    space = {"training.seed": {"choice": [1, 2]}}
    sweep = {"name": "s", "recipe": recipe.name, "space": space, "overrides": {path: value}}
    return load_search(validate(SweepSpec, sweep, "s.yaml"), recipe.with_name("s.yaml")).base()


def by_python(recipe: Path, path: str, value: Any) -> FinetuneSpec:
    return python_recipe(recipe, **{path: value})


@pytest.mark.parametrize("changed", [by_command_line, by_sweep, by_python])
def test_a_mapping_is_merged_into_its_section(recipe: Path, changed: Any) -> None:
    spec = changed(recipe, "training", {"steps": 7})
    assert (spec.training.steps, spec.training.global_batch_size, spec.training.learning_rate) == (7, 6, 1e-3)
    spec = changed(recipe, "adapter", {"r": 16})
    assert (spec.adapter.r, spec.adapter.alpha) == (16, 9)
    assert changed(recipe, "adapter", {"method": "ia3"}).adapter.method == "ia3"
    assert changed(recipe, "data.sources.sums", {"max_rows": 9}).data.sources[0].held_out_rows == 4
    assert changed(recipe, "data.sources.sums.options", {}).data.sources[0].options == {}
    assert changed(recipe, "data.sources.sums.options", {"min_terms": 2}).data.sources[0].options == {
        "seed": 3,
        "min_terms": 2,
    }


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": {"d": 1}}}, {"a": {"b": {"e": 2}}}, {"a": {"b": {"d": 1, "e": 2}}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"r": 4}}, {"a": {"method": "lora", "alpha": 3}}, {"a": {"r": 4, "method": "lora", "alpha": 3}}),
        ({"a": {"r": 4}}, {"a": {"method": "oft"}}, {"a": {"method": "oft"}}),
        ({"a": {"method": "oft", "r": 4}}, {"a": {"method": "lora"}}, {"a": {"method": "lora"}}),
    ],
)
def test_what_takes_the_place_of_what_was_there(
    old: dict[str, Any], change: dict[str, Any], new: dict[str, Any]
) -> None:
    merge(old, change)
    assert old == new


@pytest.mark.parametrize(
    ("adapter", "rate", "doubted"),
    [
        ("lora", 20, True),
        ("lora", 2e-2, True),
        ("lora", 2e-3, False),
        ("prompt", 0.3, False),
        ("prompt", 30, True),
        ("full", 2e-5, False),
        ("full", 1e-2, True),
    ],
)
def test_a_rate_that_is_hardly_meant_is_named(recipe: Path, adapter: str, rate: float, doubted: bool) -> None:
    spec = load_spec(FinetuneSpec, recipe, [f"adapter={{method: {adapter}}}", f"training.learning_rate={rate}"])
    assert bool(spec.doubts) is doubted
    if doubted:
        assert f"training.learning_rate is {rate:g}" in spec.doubts[0] and adapter in spec.doubts[0]


def test_no_defaults_are_promised_where_nothing_is_the_default(recipe: Path) -> None:
    for field in ("register_as", "model.quantization"):
        with pytest.raises(Exception, match=f"{field}: found true; expected a mapping with"):
            load_spec(FinetuneSpec, recipe, [f"{field}=true"])
