"""Checking a recipe and asking for help are instant, because no heavy library is loaded for them."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "ray", "mlflow", "transformers", "peft", "datasets", "reasoning_gym", "bitsandbytes"}


def heavy_after(code: str) -> set[str]:
    """The heavy libraries that a fresh interpreter has loaded after running `code` in the repository's root."""
    report = "import json as _json, sys as _sys\nprint('\\n' + _json.dumps(sorted(_sys.modules)))"
    command = [sys.executable, "-c", f"import sys\nsys.path.insert(0, 'platform')\n{code}\n{report}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


def test_a_heavy_import_would_be_seen() -> None:
    assert heavy_after("import sys, types\nsys.modules['torch'] = types.ModuleType('torch')") == {"torch"}


def test_spec_and_every_recipe_load_light() -> None:
    code = """
from pathlib import Path
from didact.spec import FinetuneSpec, json_schema, load_spec
recipes = sorted(Path("jobs/recipes").glob("*.yaml"))
assert recipes
for recipe in recipes:
    load_spec(FinetuneSpec, recipe)
json_schema(FinetuneSpec)
"""
    assert heavy_after(code) == set()


def test_types_of_the_borders_load_light() -> None:
    assert heavy_after("import didact.errors, didact.env, didact.files, didact.logs, didact") == set()


def test_a_recipe_in_python_loads_light() -> None:
    code = """
import didact
recipe = didact.recipe("demo", training={"steps": 3}, data=[{"instruction": "Add.", "output": "1"}], register_as=None)
assert recipe.training.steps == 3
assert recipe.data.sources[0].path.startswith("memory:")
"""
    assert heavy_after(code) == set()


def test_help_of_the_program_and_of_every_verb_loads_light() -> None:
    code = """
import typer.main
from typer.testing import CliRunner
from didact.cli import app
verbs = typer.main.get_command(app).commands
for arguments in [["--help"], *([verb, "--help"] for verb in verbs)]:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (arguments, result.output)
"""
    assert heavy_after(code) == set()


def test_help_as_the_user_calls_it() -> None:
    command = [sys.executable, "-m", "didact.cli", "--help"]
    path = {"PYTHONPATH": str(ROOT / "platform"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_the_http_side_of_a_server_loads_no_torch() -> None:
    assert heavy_after("import didact.serving.deploy, didact.serving.engine, didact.serving") == {"ray"}


def test_the_process_that_begins_an_evaluation_loads_no_model() -> None:
    assert "peft" not in heavy_after("import didact.cluster.evaluate")


def test_the_process_of_a_trial_that_is_trained_with_others_loads_nothing_that_computes() -> None:
    code = """
from pathlib import Path
from didact.cluster import train_in_group
from didact.spec import SweepSpec, load_spec
from didact.tuning.journal import Journal
from didact.tuning.search import load_search
from didact.tuning.trial import TrialPlan, trainable
file = Path("tune_spaces/lora.yaml")
search = load_search(load_spec(SweepSpec, file), file)
plan = TrialPlan(search, Path("runs"), Journal(Path("journal")), "", None, "worker")
draw = {"index": 0, "values": {}, "origin": "random", "expected": None, "gain": None}
assert callable(trainable(plan)) and plan.spec({"draw": draw}, "00000").name == "rank_and_rate-00000"
"""
    assert heavy_after(code) == {"ray"}
