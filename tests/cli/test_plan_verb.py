"""`didact plan` with a probe, on a tiny base."""

from pathlib import Path

from typer.testing import CliRunner

from didact.cli import app
from didact.spec import to_json
from tests.fakes.recipes import tiny_recipe


def test_a_plan_with_a_probe_says_memory_and_time(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_json(tiny_recipe(tmp_path)), encoding="utf-8")  # JSON is YAML
    plain, probed = (CliRunner().invoke(app, ["plan", str(recipe), *more]) for more in ((), ("--probe",)))
    assert plain.exit_code == 0 and probed.exit_code == 0, probed.output
    assert "memory" in plain.output and "time " not in plain.output
    (time,) = [line for line in probed.output.splitlines() if line.startswith("time ")]
    assert "s a step" in time and "10 steps" in time
