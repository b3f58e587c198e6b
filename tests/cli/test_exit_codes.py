"""A recipe that cannot run ends the command at once: nothing is started, nothing is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from didact.files import write_text
from tests.conftest import ROOT


@pytest.mark.fault("T16")
def test_a_bad_recipe_ends_before_anything_starts(tmp_path: Path) -> None:
    write_text(tmp_path / "bad.yaml", "name: bad\ntraining: {steps: 1, learning_rat: 1}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), "DIDACT_RUNS": str(tmp_path / "runs")}
    program = "import sys; from didact.cli import main\ntry:\n    main()\nfinally:\n    print('ray' in sys.modules)"
    words = [sys.executable, "-c", program, "train", str(tmp_path / "bad.yaml")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and "learning_rat: unknown key; did you mean training.learning_rate?" in done.stderr
    assert done.stdout.strip() == "False", "Ray was loaded for a recipe that cannot run"
    assert not (tmp_path / "runs").exists()
