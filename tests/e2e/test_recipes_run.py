"""Recipes that need no hub run two steps as they are written; what they ask for must be there."""

import json
import math
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from didact.cli import app
from didact.cluster import finetune
from didact.spec import BUNDLED_BASE, FinetuneSpec, ReasoningGymTask, validate
from didact.spec.load import parse_mapping
from didact.spec.rewrite import with_overrides
from didact.spec.shipped import ShippedRecipe, find_recipe, shipped_recipes
from didact.tracking import effective_records

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]


def spec_of(recipe: ShippedRecipe, *overrides: str) -> FinetuneSpec:
    text = with_overrides(recipe.text, overrides, recipe.name)
    return validate(FinetuneSpec, parse_mapping(text, recipe.name), recipe.name)


def is_embedded(recipe: ShippedRecipe) -> bool:
    spec = spec_of(recipe)
    return spec.model.base == BUNDLED_BASE and all(
        source.path.startswith("reasoning-gym:") for source in spec.data.sources
    )


EMBEDDED = [each for each in shipped_recipes() if is_embedded(each)]


def run_two_steps(recipe: ShippedRecipe, folder: Path, *overrides: str) -> None:
    """As `didact train` would, with two steps, few held-out rows and questions, and nothing registered."""
    plain = spec_of(recipe)
    tasks = plain.evaluation.tasks if plain.evaluation else ()
    fewer = [f"data.sources.{each.name}.held_out_rows=4" for each in plain.data.sources if each.held_out_rows]
    fewer += [
        f"evaluation.tasks.{number}.num_items=4"
        for number, task in enumerate(tasks)
        if isinstance(task, ReasoningGymTask)
    ]
    length = ["training.epochs=", "training.steps=2", "tracking.mlflow=false", "register_as="]
    result = finetune(spec_of(recipe, *length, *fewer, *overrides), folder / "runs")
    losses = [each.metrics["train/loss"] for each in effective_records(result.run.steps)]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    assert result.report is not None
    assert all(math.isfinite(value) for value in result.report.metrics("adapter").values())


def test_there_are_embedded_recipes() -> None:
    assert {"lora", "qlora_4bit", "adalora", "prefix", "bottleneck", "full", "fsdp", "zero3_offload", "curriculum"} <= {
        each.name for each in EMBEDDED
    }


@pytest.mark.parametrize("recipe", EMBEDDED, ids=lambda recipe: recipe.name)
def test_an_embedded_recipe_runs_two_steps(recipe: ShippedRecipe, tmp_path: Path) -> None:
    run_two_steps(recipe, tmp_path)


INSTRUCTIONS = [{"instruction": f"Add {i} and 1.", "input": "", "output": f"{i + 1}"} for i in range(60)]
CHATS = [
    {"messages": [{"role": "user", "content": f"Double {i}."}, {"role": "assistant", "content": f"{2 * i}"}]}
    for i in range(60)
]


@pytest.mark.parametrize("rows", [INSTRUCTIONS, CHATS], ids=["instructions", "messages"])
def test_your_own_file_runs_in_both_forms(
    rows: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run_two_steps(find_recipe("own_data"), tmp_path)


def test_continued_pretraining_runs_after_the_command_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    words = ["你好", "世界", "中文", "分词", "标点", "机器学习", "自然语言", "处理", "模型", "训练"]
    paragraphs = ["".join(draw.choices(words, k=40)) + "。" for _ in range(120)]
    Path("corpus.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    recipe = find_recipe("continued_pretraining")
    (command,) = [line for line in recipe.text.splitlines() if line.startswith("# First: didact ")]
    arguments = command.removeprefix("# First: didact ").replace("--size 4000", "--size 60").split()
    made = CliRunner().invoke(app, arguments)
    assert made.exit_code == 0, made.output
    run_two_steps(recipe, tmp_path)
