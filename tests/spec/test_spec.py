"""What a recipe may say: good ones load, mistakes and impossible combinations are refused with the field to change."""

import json
import pickle
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest

import didact.spec
from didact.errors import DidactError, SpecError
from didact.spec import (
    EvaluateSpec,
    FinetuneSpec,
    FullSpec,
    Gsm8kTask,
    LoraSpec,
    PrefixSpec,
    ServeSpec,
    Spec,
    SweepSpec,
    json_schema,
    to_json,
    validate,
    with_absolute_paths,
)
from didact.spec.search.space import Choice, LogUniform, Simplex


def recipe(**changes: Any) -> dict[str, Any]:
    """A least recipe; a dotted name is written with `__`."""
    values: dict[str, Any] = {
        "name": "small",
        "data": {"sources": [{"name": "sums", "path": "reasoning-gym:chain_sum"}]},
        "training": {"steps": 10},
    }
    for key, value in changes.items():
        target = values
        *parents, last = key.split("__")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return values


def sweep(**changes: Any) -> dict[str, Any]:
    return {"name": "s", "recipe": "r.yaml", "space": {"adapter.r": {"choice": [4, 8]}}, **changes}


def refused(spec_type: type[Spec], values: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        validate(spec_type, values, "my.yaml")
    assert str(caught.value).startswith("my.yaml cannot be used:\n")
    return str(caught.value)


def test_least_recipe_takes_defaults() -> None:
    spec = validate(FinetuneSpec, recipe(), "my.yaml")
    assert spec.adapter == LoraSpec()
    assert spec.model.base == didact.spec.BUNDLED_BASE
    assert spec.placement.num_workers == 2
    assert [task.task for task in spec.evaluation.tasks] == ["held_out"]


def test_spec_is_frozen() -> None:
    spec = validate(FinetuneSpec, recipe(), "my.yaml")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        spec.name = "other"
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        spec.training.steps = 5


def test_spec_crosses_processes() -> None:
    spec = validate(FinetuneSpec, recipe(adapter__method="prefix", model__quantization__bits=8), "my.yaml")
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize(
    ("adapter", "kind"),
    [
        ({"r": 8}, LoraSpec),
        ({}, LoraSpec),
        ({"method": "lora", "dora": True}, LoraSpec),
        ({"method": "prefix", "num_virtual_tokens": 5}, PrefixSpec),
        ({"method": "full"}, FullSpec),
    ],
)
def test_adapter_is_chosen_by_method(adapter: dict[str, Any], kind: type[Spec]) -> None:
    assert isinstance(validate(FinetuneSpec, recipe(adapter=adapter), "my.yaml").adapter, kind)


@pytest.mark.parametrize(
    ("packing", "method", "packed"),
    [("auto", "lora", True), ("auto", "prefix", False), (False, "lora", False), (True, "full", True)],
)
def test_packing_auto_depends_on_the_method(packing: Any, method: str, packed: bool) -> None:
    values = recipe(tokens__packing=packing, adapter__method=method)
    assert validate(FinetuneSpec, values, "my.yaml").packing is packed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__learning_rat": 1}, "training.learning_rat: unknown key; did you mean training.learning_rate?"),
        ({"trainin": {}}, "trainin: unknown key; did you mean training?"),
        ({"adapter__rnk": 1}, "adapter.rnk: unknown key; method 'lora' takes alpha, dora"),
        ({"model__quantization": {"bits": 4, "kind": "nf4"}}, "model.quantization.kind: unknown key; known here: bits"),
        (
            {"data__sources": [{"name": "a", "path": "b", "wieght": 1}]},
            "0.wieght: unknown key; did you mean data.sources.0.weight?",
        ),
        (
            {"evaluation__tasks": [{"task": "held_out", "items": 3}]},
            "tasks.0.items: unknown key; known here: task",
        ),
        (  # a field of another task, not to be written into that one
            {
                "evaluation__judge": {"base": "a/b"},
                "evaluation__tasks": [
                    {"task": "belle_eval", "path": "e.json"},
                    {"task": "gsm8k", "path": "g.jsonl", "judging": {"passes": 2}},
                ],
            },
            "tasks.1.judging: unknown key; known here: examples, ",
        ),
    ],
)
def test_unknown_key_gets_a_hint(changes: dict[str, Any], message: str) -> None:
    assert message in refused(FinetuneSpec, recipe(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__learning_rate": "fast"}, "training.learning_rate: found 'fast'; expected a number above 0"),
        ({"training__learning_rate": float("inf")}, "training.learning_rate: found inf; expected a finite number"),
        ({"training__learning_rate": 0}, "training.learning_rate: found 0; expected a number above 0"),
        (
            {"training__global_batch_size": 1.5},
            "training.global_batch_size: found 1.5; expected a whole number of at least 1",
        ),
        ({"training__schedule": "step"}, "training.schedule: found 'step'; expected 'cosine', 'linear' or 'constant'"),
        (
            {"training__keep_checkpoints": 1},
            "training.keep_checkpoints: found 1; expected a whole number of at least 2",
        ),
        ({"model__quantization__bits": 3}, "model.quantization.bits: found 3; expected 4 or 8"),
        ({"adapter__method": "lorra"}, "adapter.method: found 'lorra'; did you mean 'lora'?"),
        ({"data__sources": []}, "data.sources: found []"),
        ({"data__max_bad_rows_share": 2}, "data.max_bad_rows_share: found 2; expected a number from 0 to 1"),
        ({"name": "../escape"}, "name: found '../escape'; expected text of letters, digits, '_', '.' and '-'"),
        ({"register_as": {"alias": "champion"}}, "register_as.name: missing; this key is required"),
        ({"evaluation__tasks": [{"task": "quiz"}]}, "evaluation.tasks.0.task: found 'quiz'; expected 'held_out'"),
    ],
)
def test_wrong_value_says_what_was_found_and_expected(changes: dict[str, Any], message: str) -> None:
    assert message in refused(FinetuneSpec, recipe(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__epochs": 1}, "training: give either steps or epochs; found steps=10, epochs=1"),
        ({"training": {}}, "training: give either steps or epochs; found neither"),
        (
            {"training": {"steps": 9, "warmup_steps": 3, "warmup_share": 0.1}},
            "either warmup_steps or warmup_share, the other null",
        ),
        ({"training": {"steps": 9, "warmup_share": None}}, "either warmup_steps or warmup_share, the other null"),
        ({"training": {"steps": 9, "warmup_steps": 9}}, "training: warmup_steps (9) must be below steps (9)"),
        ({"placement__num_workers": 17}, "placement.num_workers is 17 but training.global_batch_size is 16"),
        ({"adapter__method": "full", "model__quantization__bits": 4}, "remove model.quantization or choose an adapter"),
        ({"adapter__method": "full", "register_as__name": "x"}, "with adapter.method 'full' remove register_as"),
        ({"adapter__method": "prefix", "tokens__packing": True}, "set tokens.packing to auto or false"),
        ({"evaluation": None, "register_as": {"name": "x", "gate": {"eval/loss": 0.1}}}, "known: none, since"),
        ({"data__sources": [{"name": "a", "path": "x"}] * 2}, "data.sources: two sources are named 'a'"),
    ],
)
def test_impossible_combination_names_the_field_to_change(changes: dict[str, Any], message: str) -> None:
    assert message in refused(FinetuneSpec, recipe(**changes))


def test_the_warm_up_is_a_share_or_a_number_of_steps(tmp_path: Path) -> None:
    share = validate(FinetuneSpec, recipe(training={"steps": 100}), "my.yaml").training
    counted = validate(FinetuneSpec, recipe(training={"epochs": 2, "warmup_steps": 5}), "my.yaml")
    assert (share.num_warmup_steps(100), share.num_warmup_steps(10)) == (3, 1)
    assert counted.training.num_warmup_steps(100) == 5
    assert FinetuneSpec.model_validate_json(to_json(counted)) == counted
    with pytest.raises(SpecError, match="warmup_steps is 5, but 2 epochs are 4 steps"):
        counted.training.num_steps(32)
    old = json.loads(to_json(validate(FinetuneSpec, recipe(training={"steps": 100}), "my.yaml")))
    del old["training"]["warmup_steps"]  # as recipes of runs were written before there was such a field
    assert validate(FinetuneSpec, old, "recipe.json").training == share


def test_every_problem_is_told_at_once() -> None:
    message = refused(FinetuneSpec, recipe(training__steps=0, tokens__max_length="long", nam="x"))
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == [
        "  - tokens.max_length",
        "  - training.steps",
        "  - nam",
    ]


def test_refusal_is_a_value_error_that_survives_pickling() -> None:
    with pytest.raises(ValueError, match="training") as caught:
        validate(FinetuneSpec, {}, "my.yaml")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, DidactError)
    assert str(copy) == str(caught.value)


def test_sweep_reads_each_distribution() -> None:
    space = {
        "adapter.r": {"choice": [4, 8]},
        "training.learning_rate": {"loguniform": [1e-5, 1e-3]},
        "data.weights": {"simplex": ["a", "b"]},
    }
    kinds = [type(kind) for kind in validate(SweepSpec, sweep(space=space), "my.yaml").space.values()]
    assert kinds == [Choice, LogUniform, Simplex]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "space: found {}"),
        ({"space": {"adapter.r": {"loguniform": [0, 1]}}}, "bounds must be positive"),
        (
            {"space": {"data.weights": {"choice": [1, 2]}}},
            "simplex and mixture are for data.weights, which takes one of them",
        ),
        ({"space": {"adapter.r": {"simplex": ["a", "b"]}}}, "simplex and mixture are for data.weights"),
        ({"space": {"adapter.r": {"grid": [1]}}, "searcher": "optuna"}, "grid needs searcher 'random'"),
        ({"mode": "least"}, "mode: found 'least'; expected 'min' or 'max'"),
        ({"scheduler": {"grace": 3}}, "scheduler.grace: unknown key; did you mean scheduler.grace_steps?"),
    ],
)
def test_impossible_sweep_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refused(SweepSpec, sweep(**changes))


def test_serve_and_evaluate_specs_load() -> None:
    serve = validate(ServeSpec, {"model": {"base": "/models/x"}, "max_adapters": 2}, "serve.yaml")
    assert (serve.model.base, serve.max_adapters, serve.default_alias) == ("/models/x", 2, "champion")
    task = {"task": "gsm8k", "path": "gsm8k.jsonl", "num_items": 5}
    evaluate = validate(EvaluateSpec, {"adapter": "demo@champion", "evaluation": {"tasks": [task]}}, "e.yaml")
    assert evaluate.evaluation.tasks == (Gsm8kTask(task="gsm8k", path="gsm8k.jsonl", num_items=5),)


@pytest.mark.parametrize("spec_type", [FinetuneSpec, SweepSpec, EvaluateSpec, ServeSpec])
def test_schema_documents_every_field(spec_type: type[Spec]) -> None:
    schema = json.loads(json_schema(spec_type))
    assert schema["additionalProperties"] is False
    for kind in [schema, *schema["$defs"].values()]:
        assert kind["description"]
        explained = {
            name for name, field in kind["properties"].items() if {"description", "$ref", "const"} & set(field)
        }
        assert len(kind["properties"]) == 1 or explained == set(kind["properties"])


def test_schema_agrees_with_the_loader() -> None:
    checker = jsonschema.Draft202012Validator(json.loads(json_schema(FinetuneSpec)))
    assert checker.is_valid(recipe(adapter={"method": "lora", "r": 8}))
    assert not checker.is_valid(recipe(training__learning_rat=1))
    assert not checker.is_valid(recipe(training__learning_rate="fast"))


def all_specs() -> list[type[Spec]]:
    found = [Spec]
    for spec in found:
        found += [child for child in spec.__subclasses__() if child not in found]
    return found


@pytest.mark.parametrize("spec_type", all_specs(), ids=lambda spec: spec.__name__)
def test_every_spec_explains_itself(spec_type: type[Spec]) -> None:
    assert spec_type.__doc__
    assert spec_type.model_config["extra"] == "forbid"
    assert spec_type.model_config["frozen"]


def test_local_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    values = {
        "name": "x",
        "model": {"base": "base"},
        "data": {"sources": [{"name": "a", "path": "rows/*.json"}, {"name": "b", "path": "hf:o/n"}]},
        "training": {"steps": 1},
        "evaluation": {"tasks": [{"task": "gsm8k", "path": "gsm8k.jsonl"}]},
    }
    spec = with_absolute_paths(validate(FinetuneSpec, values, "test"))
    assert spec.model.base == str(tmp_path / "base")
    assert [source.path for source in spec.data.sources] == [str(tmp_path / "rows/*.json"), "hf:o/n"]
    assert spec.evaluation is not None and spec.evaluation.tasks[0].path == str(tmp_path / "gsm8k.jsonl")
    hub = validate(FinetuneSpec, {**values, "model": {"base": "owner/name"}}, "test")
    assert with_absolute_paths(hub).model.base == "owner/name"


def test_duplicates_and_contamination_change_nothing_unless_asked() -> None:
    data = validate(FinetuneSpec, recipe(), "test").data
    assert (data.duplicates.within, data.duplicates.across, data.duplicates.near) == ("keep", "keep", False)
    assert (data.contamination.policy, data.contamination.against) == ("allow", ())


def test_evaluation_sets_have_names_of_their_own_and_absolute_paths(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    exam = {"name": "exam", "path": "exam.json", "question": "examples.input"}
    hub = {"name": "gsm8k", "path": "hf:openai/gsm8k:main"}
    spec = validate(FinetuneSpec, recipe(data__contamination={"against": [exam, hub]}), "test")
    paths = [each.path for each in with_absolute_paths(spec).data.contamination.against]
    assert paths == [str(tmp_path / "exam.json"), "hf:openai/gsm8k:main"]
    assert "two evaluation sets are named 'exam'" in refused(
        FinetuneSpec, recipe(data__contamination={"against": [exam, exam]})
    )
    assert "data.contamination.ngram" in refused(FinetuneSpec, recipe(data__contamination={"ngram": 3}))
