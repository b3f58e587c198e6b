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


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1e-4, 0.002], ["0.0001", "0.002"]),
        ([1.00000001e-3, 1.00000002e-3], ["0.00100000001", "0.00100000002"]),
        ([1_000_000, 2], ["1000000", "2"]),
        ([True, None], ["True", "None"]),
        (["Qwen/Qwen2.5-0.5B", "a folder/b"], ["Qwen-Qwen2.5-0.5B", "a-folder-b"]),
    ],
)
def test_a_path_with_values_is_short_for_a_level_a_value(values: list[Any], names: list[str]) -> None:
    levels = study_spec({"some": {"a.b": values}}).factors["some"]
    assert levels == {name: {"a.b": value} for name, value in zip(names, values, strict=True)}


def test_numbers_name_levels_as_they_are_written() -> None:
    factors = {"rows": {320: {}, 80: {"training.steps": 2}, 1.5: {"training.steps": 3}}}
    spec = study_spec(factors, defaults={"rows": 80}, design="one_at_a_time", cells=[{"rows": 1.5}])
    assert list(spec.factors["rows"]) == ["320", "80", "1.5"]
    assert spec.combinations() == [{"rows": "80"}, {"rows": "320"}, {"rows": "1.5"}]


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
        ({"factors": {"one": {}}}, r"a factor needs at least two levels; found \[\]"),
        ({"factors": {}}, "factors: a study needs one or more; found {}"),
        (
            {"factors": {"one": {"a b": {}, "c": {}}}},
            "factors.one.a b: the name 'a b' cannot be used; expected",
        ),
        ({"factors": {"o/e": {"b": {}, "c": {}}}}, "factors.o/e: the name 'o/e' cannot be used"),
        ({"factors": {"one": {True: {}, False: {}}}}, "found true as a name, which YAML makes of words like on"),
        ({"factors": {"one": {"a.b": [5, 5]}}}, "factors.one: a.b: 5 and 5 would both be the level 5"),
        ({"factors": {"one": {"a.b": [0.001, 1e-3, 2e-3]}}}, "0.001 and 0.001 would both be the level 0.001"),
        ({"factors": {"one": {"a.b": ["模板", "b"]}}}, "'模板' makes no name of a level; name the levels"),
        ({"factors": {"one": {"a.b": [["q"], ["k"]]}}}, r"for \['q'\], name the levels: NAME: \{a.b: VALUE\}"),
        (
            {"factors": {f"f{n}": {"a.b": list(range(10))} for n in range(7)}},
            "10,000,000 cells; expected at most 10,000",
        ),
        (
            {"design": "listed", "cells": [{"rank": "x"}, {"size": "y"}]},
            "cells.0.rank: found 'x'; .*; cells.1: there is no factor 'size'",
        ),
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
    file = written(tmp_path, factors=factors, seeds=[0, 1])
    told = refusal(file)
    assert told[0] == f"{file}: 10 of 12 cells cannot be run:"
    assert [line.rpartition(" (cells with ")[2] for line in told[1:]] == ["word=odd)", "steps=0)", "steps=-1)"]
    assert "training.colour: unknown key" in told[1] and "training.steps: found 0; expected" in told[2]


def refusal(file: Path) -> list[str]:
    with pytest.raises(SpecError) as refused:
        load_study(load_spec(StudySpec, file), file)
    return str(refused.value).splitlines()


def test_a_problem_of_some_cells_names_the_first_of_them(tmp_path: Path) -> None:
    cells = [{"a": a, "b": b} for a in "12345" for b in "12345" if a != b]
    levels = {path: {n: {f"training.{path}": int(n)} for n in "12345"} for path in ("warmup_steps", "colour")}
    file = written(tmp_path, factors={"a": levels["warmup_steps"], "b": levels["colour"]}, design="listed", cells=cells)
    (_, line) = refusal(file)
    assert line.endswith("(all cells)")
    levels["colour"]["1"] = {}
    file = written(tmp_path, factors={"a": levels["warmup_steps"], "b": levels["colour"]}, design="listed", cells=cells)
    line = refusal(file)[1]
    assert line.endswith("(16 cells: a=1, b=2; a=1, b=3; a=1, b=4; ...)"), refusal(file)


def test_a_mistake_of_the_recipe_is_told_with_its_line(tmp_path: Path) -> None:
    file = written(tmp_path)
    recipe = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe + "colour: red\n")
    number = len(recipe.splitlines()) + 1
    (_, line) = refusal(file)
    assert line.startswith(f"  - recipe.yaml, line {number}: colour: unknown key;") and line.endswith("(all cells)")


@pytest.mark.parametrize(
    ("factors", "told"),
    [
        (
            {
                "method": {"a": {}, "b": {"training.learning_rate": 0.1}},
                "rate": {"training.learning_rate": [1e-3, 2e-3]},
            },
            "factors.method.b sets training.learning_rate, and factors.rate.0.001 sets it again "
            "(cells with method=b, rate=0.001)",
        ),
        (
            {"rank": {"adapter.r": [2, 4]}, "adapter": {"none": {}, "other": {"adapter": {"r": 3}}}},
            "factors.rank.2 sets adapter.r, and factors.adapter.other sets it again (cells with rank=2, adapter=other)",
        ),
        (
            {"rank": {"adapter.r": [2, 4]}, "method": {"lora": {}, "ia3": {"adapter": {"method": "ia3"}}}},
            "rank=2, method=ia3 and rank=4, method=ia3 are the same recipe; remove one or change it",
        ),
        ({"x": {"a": {}, "b": {"training.steps": 6}}}, "x=a and x=b are the same recipe"),
    ],
)
def test_a_level_without_effect_is_refused(tmp_path: Path, factors: dict[str, Any], told: str) -> None:
    assert any(told in line for line in refusal(written(tmp_path, factors=factors, overrides={"training.steps": 6})))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"factors": {"s": {"training.seed": [1, 2]}}}, "factors.s: found training.seed, .*the study's own seeds"),
        ({"overrides": {"evaluation": {"tasks": []}}}, "overrides: found evaluation.tasks, .*study's own evaluation"),
        ({"overrides": {"name": "x"}}, "overrides: found name, .*named by its levels"),
        ({"evaluation": {"tasks": []}}, "evaluation.tasks: found none; expected what every cell is measured by"),
        ({"tables": [{"name": "t", "rows": "rank", "columns": "rank"}]}, "tables.0.columns: found 'rank', which are"),
        ({"tables": [{"name": "t", "rows": "rank", "fixed": {"rank": "4"}}]}, "tables.0.fixed.rank: a factor of the"),
        ({"tables": [{"name": "t", "rows": "rank"}, {"name": "t", "rows": "method"}]}, "tables: two are named 't'"),
        (
            {"tables": [{"name": "t", "rows": "rank", "metrics": ["eval/loss", "eval/sum/accuracy"]}]},
            "tables.0.metrics: found 'eval/sum/accuracy', which no task of this study measures; expected eval/TASK/MET",
        ),
        (
            {
                "tables": [{"name": "t", "rows": "rank", "metrics": ["eval/sum/accuracy", "eval/loss"]}],
                "evaluation": {"tasks": [{"task": "reasoning_gym", "name": "chain_sum"}]},
            },
            "(?s)did you mean 'eval/chain_sum/accuracy'.*'eval/loss', which no task of this study measures",
        ),
    ],
)
def test_a_study_that_makes_no_sense_is_read_and_not_begun(changes: dict[str, Any], told: str) -> None:
    spec = study_spec(**{"factors": TWO, **changes})
    with pytest.raises(SpecError, match=told):
        load_study(spec, Path("study.yaml"))


def test_a_cell_that_nothing_would_measure_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, factors={"data": {"a": {}, "b": {"data.sources.sums.held_out_rows": 0}}})
    (_, line) = refusal(file)
    assert line == (
        "  - evaluation.tasks: held_out has no rows; set held_out_rows of a source, or other tasks (cells with data=b)"
    )


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, recipe="other.yaml")
    with pytest.raises(SpecError, match=r"recipe: found 'other.yaml', but there is no .*other.yaml nor other.yaml"):
        load_study(load_spec(StudySpec, file), file)


def test_long_names_stay_folder_names_and_differ(tmp_path: Path) -> None:
    levels = {f"{'long' * 12}{n}": {"training.steps": n + 1} for n in range(2)}
    file = written(tmp_path, factors={"a": levels, "b": {f"x{'y' * 55}{n}": {"adapter.r": 2 + n} for n in range(2)}})
    names = [cell.name for cell in load_study(load_spec(StudySpec, file), file).cells]
    assert len(set(names)) == 4 and max(map(len, names)) <= 100


def test_a_plus_in_a_level_is_no_part_of_a_folders_name(tmp_path: Path) -> None:
    file = written(tmp_path, factors={"data": {"sums": {}, "sums+letters": {"training.steps": 3}}})
    assert [cell.name for cell in load_study(load_spec(StudySpec, file), file).cells] == [
        "made-sums-s0",
        "made-sums.letters-s0",
    ]


def test_cells_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    file = written(
        tmp_path, factors={"one": {"a-b": {}, "a": {"training.steps": 3}}, "two": {"c": {}, "b-c": {"adapter.r": 3}}}
    )
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
