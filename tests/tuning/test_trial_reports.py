"""What a trial's controller passes on to Tune, and what it takes to do so."""

import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

from ray import cloudpickle

from didact.cluster.fused.asking import FusedActor
from didact.spec.search.sweep import GoalSpec
from didact.tracking import JsonLinesTracker
from didact.tuning.objective import Objective
from didact.tuning.trial import metric_report
from tests.conftest import ROOT

HANDLE = """
import sys
from pathlib import Path
from ray import cloudpickle

methods = cloudpickle.loads(Path(sys.argv[1]).read_bytes())
print(sorted(methods), [name for name in ("torch", "transformers", "peft", "didact.training") if name in sys.modules])
"""
GOAL = Objective((GoalSpec(sum={"eval/a/loss": 0.5, "eval/b/loss": 2.0}),))
LOAD = """
import sys
from pathlib import Path
from ray import cloudpickle

kind = cloudpickle.loads(Path(sys.argv[1]).read_bytes())
report, told = object.__new__(kind), []
report._training_actor_item_queue = type("Queue", (), {"put": told.append})
for metrics in ({"step": 1}, {"step": 2, "eval/a/loss": 4.0, "eval/b/loss": 1.0}):
    report.after_report(None, [metrics], None)
heavy = [name for name in ("torch", "transformers", "didact.tuning", "didact.training") if name in sys.modules]
print(told, heavy)
"""


def test_the_goal_is_passed_on_and_little_is_loaded_for_it(tmp_path: Path) -> None:
    tracker = JsonLinesTracker(tmp_path / "steps.jsonl", 1)
    for step in (1, 2, 3):
        tracker.log(step, {"train/tokens": 100.0})
    kind = metric_report(GOAL, 8, tmp_path / "steps.jsonl")
    (tmp_path / "class").write_bytes(cloudpickle.dumps(kind))
    told = {"step": 2, "num_steps": 8, "tokens": 200.0, GOAL.name: 4.0}
    assert said_by(LOAD, tmp_path / "class") == f"{[told]} []"


def test_a_trial_that_asks_the_worker_of_all_loads_little_for_it(tmp_path: Path) -> None:
    methods = {name: signature(method) for name, method in vars(FusedActor).items() if callable(method)}
    (tmp_path / "methods").write_bytes(cloudpickle.dumps(methods))  # as Ray hands on an actor
    assert said_by(HANDLE, tmp_path / "methods") == "['__init__', 'leave', 'measurement', 'train'] []"


def said_by(code: str, file: Path) -> str:
    """What a fresh interpreter says of it."""
    environment: dict[str, Any] = {"PYTHONPATH": str(ROOT / "platform")}
    words = [sys.executable, "-c", code, str(file)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()
