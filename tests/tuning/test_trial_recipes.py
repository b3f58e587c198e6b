import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from didact.errors import SpecError
from didact.spec import ChoiceSpec, SweepSpec, validate
from didact.tuning import Search, load_search, trial_spec
from didact.tuning.journal import Journal
from didact.tuning.search import best_spec, trial_name
from didact.tuning.trial import TrialPlan

RECIPE: dict[str, Any] = {
    "name": "demo",
    "data": {
        "sources": [
            {"name": "sums", "path": "reasoning-gym:chain_sum", "held_out_rows": 8},
            {"name": "letters", "path": "reasoning-gym:letter_counting", "weight": 3},
        ]
    },
    "training": {"steps": 10, "evaluate_every": 5},
    "tracking": {"experiment": "mine"},
    "evaluation": {"tasks": [{"task": "held_out"}]},
    "register_as": {"name": "demo", "alias": "champion", "gate": {"eval/loss": 0.1}},
}
RANKS = {"adapter.r": {"choice": [4, 8]}}


def search(folder: Path, recipe: dict[str, Any] | None = None, /, **changes: Any) -> Search:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE if recipe is None else recipe))
    values = {"name": "s", "recipe": "recipe.yaml", "space": RANKS, **changes}
    return load_search(validate(SweepSpec, values, "s.yaml"), folder / "s.yaml")


def refused(folder: Path, recipe: dict[str, Any] | None = None, /, **changes: Any) -> str:
    with pytest.raises(SpecError) as caught:
        search(folder, recipe, **changes)
    assert str(folder / "s.yaml") in str(caught.value)
    return str(caught.value)


def without(*path: str) -> dict[str, Any]:
    changed: dict[str, Any] = yaml.safe_load(yaml.safe_dump(RECIPE))
    target: Any = changed
    for part in path[:-1]:
        target = target[int(part) if isinstance(target, list) else part]
    del target[path[-1]]
    return changed


def test_trial_takes_overrides_then_values(tmp_path: Path) -> None:
    found = search(tmp_path, overrides={"training.steps": 20, "adapter.r": 2})
    values = {"adapter.r": 8, "data.sources.sums.weight": 0.25, "data.sources.letters.weight": 0.75}
    spec = trial_spec(found.recipe, values, "s-1", found.origin, "sqlite:////runs/mlflow.db")
    assert (spec.name, spec.training.steps, spec.adapter.r) == ("s-1", 20, 8)
    assert {source.name: source.weight for source in spec.data.sources} == {"sums": 0.25, "letters": 0.75}
    assert (spec.evaluation, spec.register_as) == (None, None)
    assert (spec.tracking.uri, spec.tracking.experiment) == ("sqlite:////runs/mlflow.db", "mine")


def test_a_search_draws_which_rows_of_a_source_stay(tmp_path: Path) -> None:
    rows = "data.sources.sums.choose"
    space = {
        f"{rows}.by": {"choice": ["ifd", "diversity"]},
        f"{rows}.share": {"choice": [0.1, 0.3]},
        f"{rows}.clusters": {"choice": [None, "auto", 40], "when": {f"{rows}.by": ["ifd"]}},
    }
    found = search(tmp_path, space=space)
    values = {f"{rows}.by": "ifd", f"{rows}.share": 0.3, f"{rows}.clusters": 40}
    (first, second) = trial_spec(found.recipe, values, "s-1", found.origin).data.sources
    assert first.choose == ChoiceSpec(by="ifd", share=0.3, clusters=40) and second.choose is None
    values = {f"{rows}.by": "diversity", f"{rows}.share": 0.1}
    (first, _) = trial_spec(found.recipe, values, "s-2", found.origin).data.sources
    assert first.choose == ChoiceSpec(by="diversity", share=0.1)
    refusal = refused(tmp_path, space={**space, f"{rows}.share": {"choice": [0.1, 2]}})
    assert "data.sources.0.choose.share: found 2" in refusal


def test_trials_do_not_touch_each_other(tmp_path: Path) -> None:
    found = search(tmp_path)
    trial_spec(found.recipe, {"data.sources.sums.weight": 9.0, "adapter.r": 8}, "s-1", found.origin)
    assert trial_spec(found.recipe, {}, "s-2", found.origin).data.sources[0].weight == 1
    assert found.base().name == "demo"


def test_trial_that_the_schema_refuses_names_the_path(tmp_path: Path) -> None:
    found = search(tmp_path)
    with pytest.raises(SpecError, match=r"trial with adapter\.dropout=2[\s\S]*adapter\.dropout: found 2"):
        trial_spec(found.recipe, {"adapter.dropout": 2}, "s-1", found.origin)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"adapter.rank": {"choice": [4]}}}, "adapter.rank: `rank=4` is written adapter.r=4"),
        ({"space": {"trainin.steps": {"choice": [4]}}}, "trainin: unknown key; did you mean training?"),
        ({"space": {"adapter.r": {"choice": [4, 0]}}}, "space: trial with adapter.r=0"),
        ({"space": {"adapter.dropout": {"uniform": [0, 1.5]}}}, "adapter.dropout: found 1.5"),
        ({"space": {"data.sources.words.weight": {"uniform": [1, 2]}}}, "no item 'words'"),
        ({"space": {"data.weights": {"simplex": ["sums", "words"]}}}, "no source 'words'; expected some of ['sums'"),
        ({"space": {"tracking.mlflow": {"choice": [True]}}}, "space.tracking.mlflow: trials all share"),
        ({"overrides": {"adapter.rank": 4}}, "adapter.rank: `rank=4` is written adapter.r=4"),
        ({"recipe": "other.yaml"}, "recipe: found 'other.yaml', but there is no"),
        ({"metric": "eval/sums/accuracy"}, "metric: found 'eval/sums/accuracy'; expected what trials report"),
        ({"metric": "eval/letters/loss"}, "metric: found 'eval/letters/loss'; expected what trials report"),
        ({"metric": "loss"}, "metric: found 'loss'; expected one of"),
        (
            {
                "overrides": {"adapter": {"method": "full"}, "register_as": None},
                "space": {"training.learning_rate": {"uniform": [1e-5, 1e-4]}},
                "register_best_as": "x",
            },
            "register_best_as cannot be used:",
        ),
    ],
)
def test_search_that_does_not_fit_its_recipe_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, **changes)


def test_metric_must_be_reported_during_training(tmp_path: Path) -> None:
    nothing_held_out = {**without("data", "sources", "0", "held_out_rows"), "register_as": None}
    assert "set data.sources.sums.held_out_rows" in refused(tmp_path, nothing_held_out)
    assert "training.evaluate_every; set it under overrides" in refused(tmp_path, without("training", "evaluate_every"))
    search(tmp_path, without("training", "evaluate_every"), overrides={"training.evaluate_every": 2})
    search(tmp_path, without("training", "evaluate_every"), metric="train/loss")


def test_recipe_is_found_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.chdir(tmp_path)
    sweep = validate(SweepSpec, {"name": "s", "recipe": "jobs/recipe.yaml", "space": RANKS}, "s.yaml")
    assert load_search(sweep, tmp_path / "spaces" / "s.yaml").base().name == "demo"


def test_best_trial_gets_its_evaluation_back(tmp_path: Path) -> None:
    found = search(tmp_path, register_best_as="best")
    trial = trial_spec(found.recipe, {"adapter.r": 8}, trial_name(found.sweep, "1"), found.origin)
    spec = best_spec(found, trial)
    assert (spec.name, spec.adapter.r, spec.evaluation) == ("s-1", 8, found.base().evaluation)
    assert spec.register_as is not None
    assert (spec.register_as.name, spec.register_as.alias) == ("best", "candidate")
    assert spec.register_as.gate.least == {"eval/loss": 0.1}, "the recipe says what a candidate must reach"


def test_longest_trial_is_the_one_that_the_scheduler_reckons_with(tmp_path: Path) -> None:
    assert search(tmp_path).longest().training.steps == 10
    assert search(tmp_path, space={"training.steps": {"randint": [5, 40]}}).longest().training.steps == 40


def test_the_temperature_of_a_mixture_is_searched_like_any_number(tmp_path: Path) -> None:
    space = {"data.temperature": {"loguniform": [1, 8]}, "data.strategy": {"choice": ["temperature"]}}
    found = search(tmp_path, space=space)
    spec = trial_spec(found.recipe, {"data.temperature": 4.5, "data.strategy": "temperature"}, "s-1", found.origin, "-")
    assert (spec.data.strategy, spec.data.temperature) == ("temperature", 4.5)
    message = refused(tmp_path, space={"data.temperature": {"uniform": [0, 8]}})
    assert "data.temperature" in message and "0.01" in message


ONE = {"placement.num_workers": 1}


def test_trials_that_can_share_a_base_are_fused(tmp_path: Path) -> None:
    space = {**RANKS, "training.learning_rate": {"loguniform": [1e-4, 1e-3]}, "adapter.dropout": {"choice": [0, 0.1]}}
    found = search(tmp_path, fused=True, overrides=ONE, space=space)
    assert found.sweep.fused


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "the recipe cannot be trained with others on one base:\n  - placement.num_workers: .*found 2, write 1"),
        (
            {"overrides": {**ONE, "adapter.method": "ia3"}},
            "the recipe cannot be .*\n  - adapter.method: 'ia3' is no plain LoRA",
        ),
        (
            {"overrides": ONE, "space": {"adapter.dora": {"choice": [False, True]}}},
            "a trial with adapter.dora=True cannot be .*\n  - adapter.dora: ",
        ),
        (
            {"overrides": ONE, "space": {"adapter.method": {"choice": ["lora", "vera"]}}},
            "a trial with adapter.method='vera' cannot be .*\n  - adapter.method: 'vera'",
        ),
        (
            {"overrides": ONE, "space": {"model.base": {"choice": ["smollm2-135m-instruct", "other"]}}},
            "a trial with model.base='other' cannot be .*\n  - model: .*other.*all share one base",
        ),
        (
            {
                "overrides": ONE,
                "space": {"model.quantization": {"choice": [None, {"bits": 4}]}},
            },
            "a trial with model.quantization=.* cannot be .*\n  - model: ",
        ),
    ],
)
def test_what_cannot_be_fused_is_refused_with_file_and_field(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    assert re.search(f"s.yaml: fused: {words}", refused(tmp_path, fused=True, **changes), re.DOTALL)


def test_time_is_no_budget_of_fused_trials(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="fused trials share their time, by which budget '2h' counts"):
        search(tmp_path, fused=True, overrides=ONE, budget="2h")
    assert search(tmp_path, fused=True, overrides=ONE, budget="1e6 tokens").sweep.fused


def test_paths_of_a_trial_begin_where_the_search_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, elsewhere = tmp_path / "started", tmp_path / "elsewhere"
    for folder in (started / "adapter", started / "base", elsewhere):
        folder.mkdir(parents=True)
    (started / "adapter" / "adapter.json").touch()
    for name in ("first", "second"):
        (started / f"{name}.jinja").write_text(name + "{{ messages }}")
    recipe = {
        **RECIPE,
        "model": {"base": "base"},
        "adapter": {"method": "lora", "from": "adapter"},
        "data": {"sources": [{"name": "own", "path": "own.jsonl", "held_out_rows": 8, "options": {"root": "files"}}]},
    }
    space = {"tokens.template": {"choice": ["first.jinja", "second.jinja"]}}
    monkeypatch.chdir(started)
    found = search(tmp_path, recipe, space=space)
    plan = TrialPlan(found, tmp_path / "trials", Journal(tmp_path / "journal"), "none", None)
    monkeypatch.chdir(elsewhere)  # as Tune has a trial's process do
    trial = pickle.loads(pickle.dumps(plan)).spec({"tokens.template": "second.jinja"}, "00000")
    source = trial.data.sources[0]
    assert (trial.model.base, trial.adapter.start) == (str(started / "base"), str(started / "adapter"))
    assert (source.path, source.options["root"]) == (str(started / "own.jsonl"), str(started / "files"))
    assert trial.tokens.template == "second{{ messages }}"
