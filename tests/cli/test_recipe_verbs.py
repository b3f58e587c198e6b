"""`didact recipes` and `didact init`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from didact.cli import app
from didact.errors import DidactError, SpecError
from didact.spec import FinetuneSpec, load_spec
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, DidactError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_has_a_line_for_each_under_what_it_runs_on() -> None:
    lines = run("recipes").splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.strip() for line in lines if line[:1].strip()]
    assert heads[:4] == ["laptop", "one A100", "8 A100s", "spot cluster"]
    names = [line.split()[0] for line in lines if line.startswith("  ") and line.strip()]
    assert sorted(names) == sorted(file.stem for file in (ROOT / "jobs" / "recipes").glob("*.yaml"))


def test_json_and_one_as_it_is() -> None:
    shown = {each["name"]: each for each in json.loads(run("recipes", "--json"))}
    lora = (ROOT / "jobs" / "recipes" / "lora.yaml").read_text(encoding="utf-8")
    assert shown["lora"]["text"] == lora == run("recipes", "lora")
    assert shown["lora"]["machine"] == "laptop" and shown["lora"]["purpose"] in lora.splitlines()[0]
    assert [each["name"] for each in json.loads(run("recipes", "lora", "--json"))] == ["lora"]


def test_init_writes_a_recipe_with_changes_and_comments_and_says_what_is_next(tmp_path: Path) -> None:
    changes = ["model.base=Qwen/Qwen2.5-0.5B", "training.learning_rate=1e-4", "data.sources.chain_sum.max_rows=100"]
    printed = run("init", "lora", "-o", "mine.yaml", *changes)
    assert "didact plan mine.yaml" in printed and "didact train mine.yaml" in printed
    written = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert "Qwen/Qwen2.5-0.5B   # or a local folder" in written and "# dora: true" in written
    spec = load_spec(FinetuneSpec, "mine.yaml")
    assert spec.name == "mine"
    assert spec == load_spec(FinetuneSpec, ROOT / "jobs" / "recipes" / "lora.yaml", ["name=mine", *changes])


def test_what_comes_before_the_plan_is_said_too() -> None:
    lines = run("init", "continued_pretraining").splitlines()
    assert lines[lines.index("next:") + 1].startswith("  didact vocabulary corpus.txt bases/wide")


def test_init_without_a_file_takes_the_recipes_own_name(tmp_path: Path) -> None:
    run("init", "temperature-mixture", "name=other")
    assert load_spec(FinetuneSpec, tmp_path / "temperature_mixture.yaml").name == "other"


@pytest.mark.parametrize(("file", "name"), [("12.yaml", "run_12"), ("my run.yaml", "my_run"), ("é.yaml", "run_")])
def test_the_run_is_named_like_the_file(file: str, name: str) -> None:
    run("init", "full", "-o", file)
    assert load_spec(FinetuneSpec, file).name == name


def test_init_overwrites_nothing_and_writes_nothing_wrong(tmp_path: Path) -> None:
    (tmp_path / "lora.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(SpecError, match=r"lora\.yaml exists; name another file with -o"):
        run("init", "lora")
    with pytest.raises(SpecError, match=r"recipe lora with these changes.*\n.*adapter\.rr: unknown key"):
        run("init", "lora", "-o", "other.yaml", "adapter.rr=3")
    with pytest.raises(SpecError, match="no recipe is named 'loro'; did you mean 'lora'"):
        run("init", "loro")
    assert [file.name for file in tmp_path.iterdir()] == ["lora.yaml"]
    assert (tmp_path / "lora.yaml").read_text(encoding="utf-8") == "mine"
