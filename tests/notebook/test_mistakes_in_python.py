"""A mistake is told in Python in the words of the command line, the line of a file aside, where there is none."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import didact
from didact.cli import main
from didact.spec import set_dotted
from tests.fakes.models import save_tiny_base
from tests.fakes.recipes import write_sums

RECIPE = {"name": "x", "data": {"sources": [{"name": "sums", "path": "sums.jsonl"}]}, "training": {"steps": 1}}
WRITTEN = [
    ("lerning_rate", 1e-4, "did you mean training.learning_rate?"),
    ("training.learning_rat", 1e-4, "did you mean training.learning_rate?"),
    ("adapter.lora.r", 8, "adapter.r: 8"),
    ("load_in_4bit", True, "is written model.quantization.bits: 4"),
    ("evaluation", True, "found true; leave the key out for the defaults"),
    ("model.quantization", 4, "found 4; write model.quantization.bits: 4"),
    ("adapter", "lora", "found 'lora'; write adapter.method: lora"),
    ("model", "owner/base", "found 'owner/base'; write model.base: owner/base"),
    ("adapter.target_modules", [], "names no module; write all-linear"),
    ("adapter.target_modules", "q_proj, v_proj", "write [q_proj, v_proj], or all-linear"),
    ("placement.num_workers", {"min": 2, "max": 1}, "placement.num_workers"),
    ("placement.num_workers", {"min": 1}, "placement.num_workers.max: missing"),
    ("training.steps", "10k", "found '10k'; write training.steps: 10000"),
    ("training.learning_rate", "high", "training.learning_rate: found 'high'; expected a"),
    ("training.sharding", "zero-3", "write training.sharding.strategy: zero3"),
    ("name", 2024, "found 2024; write name: '2024'"),
    ("name", False, "name: found false"),
    ("evaluation.tasks", "held_out", "write evaluation.tasks: [{task: held_out}]"),
    ("data.sources", {"a": "a.json"}, "write data.sources: [{name: a, path: a.json}]"),
]
MET_LATER = [
    ("model.base", "sums.jsonl", "sums.jsonl"),
    ("model.base", "nowhere/at-all/base", "nowhere"),
    ("data.sources", [{"name": "sums", "path": "/nowhere/sums.jsonl"}], "/nowhere/sums.jsonl"),
    ("data.sources", [{"name": "sums", "path": "sums.json"}], "sums.json"),
    ("data.sources", [{"name": "sums", "path": "card:dolli"}], "dolly"),
    ("data.sources", [{"name": "sums", "path": "sums.jsonl", "held_out_rows": 60}], "held_out_rows"),
    ("adapter.target_modules", ["query"], "adapter.target_modules: LlamaForCausalLM has no module named query"),
    ("adapter", {"method": "peft", "name": "lora", "options": {"modules_to_save": ["score"]}}, "named score"),
    ("tokens.template", "none.jinja", "none.jinja"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_sums(tmp_path / "sums.jsonl")
    return tmp_path


def with_mistake(path: str, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(yaml.safe_dump(RECIPE))
    set_dotted(values, path, value, "test")
    return values


def in_python(error: didact.DidactError) -> str:
    return f"{type(error).__name__}: {error}"


def on_the_command_line(values: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    Path("recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["didact", "plan", "recipe.yaml"])
        main()
    assert ended.value.code not in (0, None)
    said = capsys.readouterr().err.split("error: ", 1)[-1].strip()
    return re.sub(r"line \d+: ", "", said).replace("recipe.yaml cannot", "this recipe cannot")


@pytest.mark.parametrize(("path", "value", "said"), WRITTEN)
def test_what_cannot_be_written(path: str, value: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = with_mistake(path, value)
    with pytest.raises(didact.DidactError) as caught:
        didact.recipe(**values)
    assert said in str(caught.value)
    assert in_python(caught.value) == on_the_command_line(values, capsys)
    assert str(caught.value).count("\n  - ") == 1, "one mistake, one complaint"


@pytest.mark.parametrize(("path", "value", "said"), MET_LATER)
def test_what_a_plan_finds(path: str, value: Any, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny_base(folder / "base")
    values = with_mistake("model.base", "base")
    set_dotted(values, path, value, "test")
    with pytest.raises(didact.DidactError) as caught:
        didact.plan(**values)
    assert said in str(caught.value)
    capsys.readouterr()
    assert in_python(caught.value) == on_the_command_line(values, capsys)
