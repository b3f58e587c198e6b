"""Recipes from keyword arguments, files, or both, with the errors of files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import didact
from didact.datasets import load_dataset
from didact.errors import DataError, SpecError
from didact.notebook.settings import spec_from
from didact.spec import FinetuneSpec, LoraSpec, SweepSpec, load_spec

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
ROWS = [{"instruction": f"Add {n} and 1.", "output": str(n + 1)} for n in range(40)]


def test_a_recipe_of_keyword_arguments_is_that_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ndata: {sources: [{name: rows, path: rows.jsonl}]}\ntraining: {steps: 3}\n")
    made = didact.recipe(
        name="mine", data={"sources": [{"name": "rows", "path": Path("rows.jsonl")}]}, training={"steps": 3}
    )
    assert made == load_spec(FinetuneSpec, file) == didact.recipe(file) == didact.recipe(str(file))
    assert made == didact.recipe(name="mine", data="rows.jsonl", training={"steps": 3})


def test_changes_are_merged_into_a_file() -> None:
    whole = load_spec(FinetuneSpec, RECIPES / "demo.yaml")
    changed = didact.recipe(
        RECIPES / "demo.yaml", name="mine", training={"steps": 2}, adapter={"r": 4}, register_as=None
    )
    assert changed.training == whole.training.model_copy(update={"steps": 2})
    assert isinstance(changed.adapter, LoraSpec) and isinstance(whole.adapter, LoraSpec)
    assert (changed.adapter.r, changed.adapter.alpha) == (4, whole.adapter.alpha)
    assert (changed.name, changed.register_as) == ("mine", None)
    assert didact.recipe(RECIPES / "demo.yaml", **{"training.steps": 2}).training.steps == 2


def test_a_recipe_that_comes_with_didact_is_found_by_its_name() -> None:
    assert didact.recipe("demo") == load_spec(FinetuneSpec, RECIPES / "demo.yaml")
    with pytest.raises(SpecError, match="did you mean 'demo'"):
        didact.recipe("demoo")


def test_numbers_of_numpy_are_numbers() -> None:
    space = {"adapter.r": {"choice": np.array([4, 8])}}
    assert didact.recipe("demo", training={"steps": np.int64(5), "learning_rate": np.float32(0.5)}).training.steps == 5
    assert spec_from(SweepSpec, None, {"name": "s", "recipe": "demo.yaml", "space": space}).model_dump()["space"] == {
        "adapter.r": {"when": {}, "choice": (4, 8)}
    }


def test_another_method_takes_the_place_of_the_first() -> None:
    assert didact.recipe("demo", adapter={"method": "prefix"}).adapter.method == "prefix"


def test_a_recipe_is_changed_into_another() -> None:
    first = didact.recipe("demo")
    assert didact.recipe(first) is first
    second = didact.recipe(first, name="second")
    assert second == first.model_copy(update={"name": "second"})


def test_tables_are_sources() -> None:
    short = didact.recipe(name="x", data=pd.DataFrame(ROWS), training={"steps": 1})
    (source,) = short.data.sources
    assert (source.name, source.path[:7]) == ("rows", "memory:")
    long = didact.recipe(
        name="x",
        data={"sources": [{"name": "sums", "path": ROWS, "held_out_rows": 4}], "seed": 3},
        training={"steps": 1},
    )
    assert long.data.sources[0].path == source.path
    assert (long.data.sources[0].held_out_rows, long.data.seed) == (4, 3)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"load_in_4bit": True}, "`load_in_4bit: true` is written model.quantization.bits: 4"),
        ({"training": {"steps": "many"}}, "this recipe cannot be used:\n  - training.steps: "),
        ({"data": {"sources": [{"name": "a"}]}}, "data.sources.0.path: missing"),
        ({"data": 3}, "data.sources: found int; expected a path, or rows"),
    ],
)
def test_mistakes_are_told_in_the_words_of_files(fields: dict, told: str) -> None:
    values = {"name": "x", "data": ROWS, "training": {"steps": 1}}
    with pytest.raises(didact.DidactError) as caught:
        didact.recipe(**{**values, **fields})
    assert told in str(caught.value)


def test_a_mistake_in_a_file_has_its_line_and_one_in_a_change_has_not(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ndata: {sources: [{name: rows, path: rows.jsonl}]}\ntraining:\n  steps: many\n")
    with pytest.raises(SpecError, match=r"line 4: training\.steps"):
        didact.recipe(file)
    with pytest.raises(SpecError, match=r"override: training\.steps"):
        didact.recipe(file, training={"steps": "several"})


def test_a_search_keeps_paths_in_its_space() -> None:
    spec = spec_from(SweepSpec, None, {"name": "s", "recipe": "demo.yaml", "space": {"adapter.r": {"choice": [4, 8]}}})
    assert list(spec.space) == ["adapter.r"]


def test_a_recipe_prints_itself_as_its_file() -> None:
    long = "/data/" + "folder/" * 40 + "rows.jsonl"
    recipe = didact.recipe(name="mine", data=long, training={"steps": 3, "learning_rate": 1e-3})
    assert yaml.safe_load(str(recipe)) == {
        "name": "mine",
        "data": {"sources": [{"name": "rows", "path": long}]},
        "training": {"steps": 3, "learning_rate": 1e-3},
    }
    assert recipe._repr_mimebundle_()["text/plain"] == str(recipe)
    assert repr(recipe).startswith("FinetuneSpec(")


def test_a_start_that_is_none_is_refused_in_words() -> None:
    with pytest.raises(SpecError, match=r"this recipe: found list; expected a file, .* rows go in as data="):
        didact.recipe([1])  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="this evaluation: found dict; expected a file or a spec"):
        didact.evaluate({})  # type: ignore[arg-type]


def test_rows_in_memory_of_no_known_form_are_told_where_to_name_their_fields() -> None:
    with pytest.raises(DataError, match=r"the keys 'ask', 'reply'.*as \{'instruction': row\['FIELD'\]") as caught:
        load_dataset(
            didact.recipe("lora", data=[{"ask": "1 + 1", "reply": "2"}] * 20).data.sources[0],
            seed=0,
            max_bad_rows_share=0.0,
            quarantine_dir=None,
        )
    assert "data add" not in str(caught.value)
