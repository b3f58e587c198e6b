"""Looking at data and planning again, once all is in the cache, load no library that computes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from didact import cli
from tests.fakes.models import save_tiny_base

ROOT = Path(__file__).resolve().parents[2]
COMPUTE = ["torch", "peft", "bitsandbytes", "accelerate", "scipy", "sympy", "pandas", "reasoning_gym", "matplotlib"]
FORBIDDEN = {*COMPUTE, "datasets", "ray", "mlflow", "sklearn"}
RECIPE = """
name: light
model: {{base: {base}}}
data:
  sources:
    - {{name: file, path: {rows}}}
    - {{name: sums, path: "reasoning-gym:chain_sum", max_rows: 8, held_out_rows: 2}}
training: {{steps: 2, global_batch_size: 2, micro_batch_size: 1}}
"""


def loaded_by(verbs: list[list[str]]) -> set[str]:
    """The libraries that a fresh interpreter has loaded after these verbs."""
    code = f"""
import sys
sys.path.insert(0, "platform")
from didact import cli
for verb in {verbs!r}:
    try:
        cli.main(verb)
    except SystemExit as ended:
        assert ended.code in (0, None), (verb, ended.code)
import json
print("\\n" + json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_looking_at_data_and_planning_again_load_nothing_that_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    base = save_tiny_base(tmp_path / "base")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"instruction": f"Say {n}.", "output": str(n)}) + "\n" for n in range(6)))
    recipe = tmp_path / "light.yaml"
    recipe.write_text(RECIPE.format(base=base, rows=rows))
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", str(recipe)])
    assert ended.value.code == 0
    verbs = [
        ["data", "list"],
        ["data", "show", "alpaca", "--base", str(base)],
        ["data", "preview", str(recipe)],
        ["data", "cache"],
        ["plan", str(recipe)],
    ]
    loaded = loaded_by(verbs)
    assert FORBIDDEN & loaded == set()
    assert "transformers" in loaded  # tokens were counted
