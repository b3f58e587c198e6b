"""Reading recipes: YAML as people write it, overrides, and errors that name file and field."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from didact.errors import SpecError
from didact.spec import FinetuneSpec, LoraSpec, load_spec, read_mapping, set_dotted, to_json
from didact.spec.load import parse_value

RECIPE = """\
name: small
adapter: {r: 4}
data:
  sources:
    - {name: sums, path: "reasoning-gym:chain_sum", options: {min_terms: 2}}
    - {name: alpaca, path: data/alpaca.json, weight: 2}
training:
  steps: 10
  learning_rate: 1e-3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE)
    return file


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "written.yaml"
    file.write_text(text)
    return file


def test_defaults_then_file_then_overrides(recipe: Path) -> None:
    plain = load_spec(FinetuneSpec, recipe)
    changed = load_spec(FinetuneSpec, recipe, ["training.steps=20"])
    assert (plain.training.steps, changed.training.steps) == (10, 20)
    assert (plain.training.micro_batch_size, changed.training.micro_batch_size) == (8, 8)
    assert changed.model_copy(update={"training": plain.training}) == plain


def test_path_may_be_a_string(recipe: Path) -> None:
    assert load_spec(FinetuneSpec, str(recipe)) == load_spec(FinetuneSpec, recipe)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("training.learning_rate=1e-4", lambda spec: spec.training.learning_rate == 1e-4),
        ("training.learning_rate = 2.5E-5", lambda spec: spec.training.learning_rate == 2.5e-5),
        ("adapter.target_modules=[q_proj, v_proj]", lambda spec: spec.adapter.target_modules == ("q_proj", "v_proj")),
        ("model.base=/models/it=here", lambda spec: spec.model.base == "/models/it=here"),
        ("model.quantization.bits=4", lambda spec: spec.model.quantization.bits == 4),
        ("evaluation=null", lambda spec: spec.evaluation is None),
        ("tracking.mlflow=false", lambda spec: spec.tracking.mlflow is False),
        ("data.sources.alpaca.weight=0.5", lambda spec: [s.weight for s in spec.data.sources] == [1, 0.5]),
        ("data.sources.0.weight=0.5", lambda spec: [s.weight for s in spec.data.sources] == [0.5, 2]),
        ("data.sources.sums.options.max_terms=3", lambda spec: spec.data.sources[0].options["max_terms"] == 3),
        ("data.sources.1={name: own, path: x.json}", lambda spec: spec.data.sources[1].name == "own"),
    ],
)
def test_override(recipe: Path, override: str, read: Any) -> None:
    assert read(load_spec(FinetuneSpec, recipe, [override]))


def test_last_override_wins(recipe: Path) -> None:
    assert load_spec(FinetuneSpec, recipe, ["adapter.r=8", "adapter.r=32"]).adapter == LoraSpec(r=32)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", r"'training.steps' is not of the form key=value"),
        ("training.step=5", r"override: training\.step: unknown key; did you mean training\.steps\?"),
        ("name.first=x", r"cannot set name\.first: name is 'small', not a mapping"),
        ("data.sources.dolly.weight=1", r"no item 'dolly'; expected one of \['sums', 'alpaca'\] or an index"),
        ("data.sources.2=x", r"no item '2'; expected one of \['sums', 'alpaca'\] or an index"),
        ("adapter.target_modules=[q_proj", r"override 'adapter\.target_modules=\[q_proj' is not valid YAML"),
        ("training.steps=soon", r"training\.steps: found 'soon'; expected a whole number of at least 1"),
    ],
)
def test_bad_override_says_what_to_change(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_spec(FinetuneSpec, recipe, [override])


def test_set_dotted_makes_missing_levels() -> None:
    values: dict[str, Any] = {"a": None}
    set_dotted(values, "a.b.c", 1, "here")
    assert values == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-4", 1e-4), ("1E3", 1000.0), ("-2e5", -2e5), ("3", 3), ("0.5", 0.5), ("true", True), ("null", None)),
        *(
            ("", None),
            ("[1, 2]", [1, 2]),
            ("all-linear", "all-linear"),
            ("2e-4x", "2e-4x"),
            ("'7'", "7"),
            ('"1e3"', "1e3"),
        ),
    ],
)
def test_value_is_read_as_people_mean_it(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_exponents_in_a_file_are_numbers_and_quoted_ones_are_text(tmp_path: Path) -> None:
    values = read_mapping(written(tmp_path, "a: 1e-4\nb: '1e-4'\nc: 1e-4b\nd: [2e5, 3E-2]\ne: element\n"))
    assert values == {"a": 1e-4, "b": "1e-4", "c": "1e-4b", "d": [2e5, 3e-2], "e": "element"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", r"key 'name' is given twice"),
        ("training:\n  steps: 1\n  steps: 2\n", r"key 'steps' is given twice[\s\S]*line 3"),
        ("- a\n- b\n", r"must hold a mapping of settings; found list"),
        ("", r"must hold a mapping of settings; found NoneType"),
        ("name: [unclosed\n", r"is not valid YAML[\s\S]*line"),
        ("? [a, b]\n: 1\n", r"is not valid YAML[\s\S]*line 1"),
        ("name: !!python/object/apply:os.getcwd []\n", r"is not valid YAML[\s\S]*could not determine a constructor"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        read_mapping(written(tmp_path, text))
    assert "written.yaml" in str(caught.value)


def test_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("name: größe\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.yaml is not UTF-8"):
        read_mapping(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml does not exist"):
        load_spec(FinetuneSpec, tmp_path / "none.yaml")


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    values = read_mapping(written(tmp_path, "base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\n"))
    assert values["mine"] == {"a": 1, "b": 3}


def test_resolved_spec_reads_back_equal(recipe: Path, tmp_path: Path) -> None:
    spec = load_spec(FinetuneSpec, recipe, ["model.quantization.bits=4", "register_as.name=small"])
    resolved = tmp_path / "spec.json"
    resolved.write_text(to_json(spec))
    assert load_spec(FinetuneSpec, resolved) == spec


def test_a_resolved_spec_is_read_as_json(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = recipe.with_suffix(".json")
    resolved.write_text(to_json(load_spec(FinetuneSpec, recipe)))

    def slow(*arguments: Any, **options: Any) -> None:
        raise AssertionError(
            "a search reads the recipes of all trials again and again, and YAML takes fifty times as long"
        )

    monkeypatch.setattr(yaml, "load", slow)
    assert load_spec(FinetuneSpec, resolved).training.steps == 10


def test_resolved_spec_holds_every_default(recipe: Path) -> None:
    resolved = json.loads(to_json(load_spec(FinetuneSpec, recipe)))
    assert set(resolved) == set(FinetuneSpec.model_fields)
    assert resolved["adapter"]["alpha"] == 32
    assert resolved["tracking"]["experiment"] == "didact"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"r": 4,', '"rr": 4,', "adapter.rr"),
        ('"name": "small",', '"name": "small",\n  "name": "again",', "key 'name' is given twice"),
        ('"seed": 0', '"seed": NaN', "seed: found 'NaN'"),
    ],
    ids=["unknown key", "a key twice", "no number"],
)
def test_what_is_wrong_in_json_is_told_by_line(recipe: Path, before: str, after: str, told: str) -> None:
    resolved = recipe.with_suffix(".json")
    text = to_json(load_spec(FinetuneSpec, recipe))
    assert before in text
    resolved.write_text(text.replace(before, after, 1))
    line = text[: text.index(before)].count("\n") + after.count("\n") + 1
    with pytest.raises(SpecError) as refused:
        load_spec(FinetuneSpec, resolved)
    assert told in str(refused.value) and re.search(rf"line {line}\b|:{line}\b", str(refused.value)), refused.value
