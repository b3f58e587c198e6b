import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from didact.datasets import open_generator
from didact.errors import SpecError
from didact.spec import StudySpec, load_spec
from didact.studies import load_study
from tests.conftest import ROOT
from tests.fakes.recipes import tiny_recipe
from tests.fakes.studies import study_spec

METHODS = {"lora": {}, "ia3": {"adapter": {"method": "ia3"}}}
TWO = {"method": METHODS, "rank": {"training.global_batch_size": [4, 8, 16]}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [(m, r) for m in ("lora", "ia3") for r in ("4", "8", "16")]),
        ({"design": "one_at_a_time"}, [("lora", "4"), ("ia3", "4"), ("lora", "8"), ("lora", "16")]),
        (
            {"design": "one_at_a_time", "defaults": {"rank": "8"}},
            [("lora", "8"), ("ia3", "8"), ("lora", "4"), ("lora", "16")],
        ),
        (
            {"design": "listed", "cells": [{"rank": "16"}, {"method": "ia3"}, {"rank": "16"}]},
            [("lora", "16"), ("ia3", "4")],
        ),
    ],
)
def test_a_design_names_each_combination_once(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    spec = study_spec(TWO, **changes)
    assert [(each["method"], each["rank"]) for each in spec.combinations()] == expected
    assert spec.num_cells == len(expected)
    assert study_spec(TWO, seeds=[1, 2, 3], **changes).num_cells == 3 * len(expected)


def test_a_path_with_values_is_short_for_a_level_a_value() -> None:
    spec = study_spec({"rate": {"training.learning_rate": [1e-4, 0.002]}})
    assert spec.factors["rate"] == {
        "0.0001": {"training.learning_rate": 1e-4},
        "0.002": {"training.learning_rate": 0.002},
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"defaults": {"size": "big"}}, r"defaults: there is no factor 'size'; expected some of \['method', 'rank'\]"),
        ({"defaults": {"rank": "32"}}, r"defaults.rank: found '32'; expected one of the levels \['4', '8', '16'\]"),
        ({"design": "listed"}, "design: listed needs cells"),
        ({"cells": [{"rank": "4"}]}, "the design full has all combinations"),
        ({"tables": [{"name": "t", "rows": "size"}]}, r"tables.0.rows: found 'size'; expected one of"),
        (
            {"tables": [{"name": "t", "rows": "rank", "fixed": {"method": "dora"}}]},
            "tables.0.fixed.method: found 'dora'",
        ),
        ({"seeds": [1, 1]}, "seeds: each once"),
        ({"factors": {"one": {"only": {}}}}, r"a factor needs at least two levels; found \['only'\]"),
    ],
)
def test_a_study_that_does_not_fit_itself_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        study_spec(**{"factors": TWO, **changes})


def written(tmp_path: Path, **changes: Any) -> Path:
    recipe = tiny_recipe(tmp_path, evaluation=None).model_dump(mode="json")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    values = {"name": "made", "recipe": "recipe.yaml", "factors": TWO, "evaluation": {}, **changes}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path / "study.yaml"


def test_every_cell_is_an_ordinary_recipe_of_its_own(tmp_path: Path) -> None:
    file = written(tmp_path, overrides={"training.steps": 7}, seeds=[3, 4])
    study = load_study(load_spec(StudySpec, file), file)
    assert len(study.cells) == 12 and len({cell.name for cell in study.cells}) == 12
    cell = next(each for each in study.cells if each.levels == {"method": "ia3", "rank": "8"} and each.seed == 4)
    assert cell.spec.adapter.method == "ia3"
    assert (cell.spec.training.steps, cell.spec.training.seed, cell.spec.register_as) == (7, 4, None)
    assert cell.spec.evaluation is not None and cell.name == "made-ia3-8-s4"


def test_all_cells_that_the_recipe_refuses_are_listed_at_once(tmp_path: Path) -> None:
    factors = {"steps": {"training.steps": [5, 0, -1]}, "word": {"ok": {}, "odd": {"training.colour": "red"}}}
    file = written(tmp_path, factors=factors)
    with pytest.raises(SpecError) as refused:
        load_study(load_spec(StudySpec, file), file)
    told = str(refused.value)
    assert told.startswith("5 of 6 cells cannot be run:")
    assert "steps=0" in told and "steps=-1" in told and "training.colour" in told


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, recipe="other.yaml")
    with pytest.raises(SpecError, match=r"recipe: found 'other.yaml', but there is no .*other.yaml nor other.yaml"):
        load_study(load_spec(StudySpec, file), file)


def test_long_names_stay_folder_names_and_differ(tmp_path: Path) -> None:
    levels = {f"{'long' * 12}{n}": {"training.steps": n + 1} for n in range(2)}
    file = written(tmp_path, factors={"a": levels, "b": {f"x{'y' * 55}{n}": {} for n in range(2)}})
    names = [cell.name for cell in load_study(load_spec(StudySpec, file), file).cells]
    assert len(set(names)) == 4 and max(map(len, names)) <= 100


def test_a_plus_in_a_level_is_no_part_of_a_folders_name(tmp_path: Path) -> None:
    file = written(tmp_path, factors={"data": {"sums": {}, "sums+letters": {"training.steps": 3}}})
    assert [cell.name for cell in load_study(load_spec(StudySpec, file), file).cells] == [
        "made-sums-s0",
        "made-sums.letters-s0",
    ]


def test_cells_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    steps = {"training.steps": 3}
    file = written(tmp_path, factors={"one": {"a-b": {}, "a": steps}, "two": {"c": {}, "b-c": steps}})
    with pytest.raises(SpecError, match=r"cells \['a-b', 'c'\] and \['a', 'b-c'\] would both be the run made-a-b-c-s0"):
        load_study(load_spec(StudySpec, file), file)


def test_the_sums_with_steps_are_the_questions_of_the_other_cells_and_add_up() -> None:
    file = ROOT / "studies" / "embedded.yaml"
    study = load_study(load_spec(StudySpec, file), file)
    (source,) = study.cells[0].spec.data.sources
    assert source.max_rows is not None
    generator = open_generator("chain_sum", source.max_rows, source.options)
    lines = (ROOT / "studies" / "data" / "sums_with_steps.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["question"], row["answer"]) for row in rows] == [
        (generator[place]["question"], generator[place]["answer"]) for place in range(source.max_rows)
    ]
    for row in rows:
        steps = [step.split(" = ") for step in row["rationale"].split(", ")]
        for sum_, total in steps:
            first, sign, second = sum_.rsplit(" ", 2)
            assert int(total) == int(first) + (int(second) if sign == "+" else -int(second))
        assert steps[-1][1] == row["answer"]
