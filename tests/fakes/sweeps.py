"""Searches in a process of their own, with faults in their trials, and what is needed to kill them at a known state."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from didact.tuning.journal import Journal
from tests.conftest import ROOT

_RUN = """
import json
import sys
from pathlib import Path
from didact.spec import SweepSpec, load_spec
from didact.tuning import run_sweep

file, runs = map(Path, sys.argv[1:3])
spec = load_spec(SweepSpec, file)
faults = dict(each.split("=", 1) for each in sys.argv[3:])

def arm(event, args):
    # A trial is written down before Ray hears of it: its fault lies there before any process of it runs.
    if event != "os.rename" or Path(args[1]).parent != runs.absolute() / spec.name / "journal":
        return
    entry = json.loads(Path(args[0]).read_text())
    fault = faults.get(str(entry["sample"]["draw"]["index"]))
    place = runs / spec.name / "trials" / f"{spec.name}-{entry['trial_id']}" / "failpoint"
    if fault and not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(fault)

if faults:
    sys.addaudithook(arm)
run_sweep(spec, file, runs)
"""


def sweep_command(
    search_file: Path, runs: Path, faults: Mapping[int, str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """Words and environment of a process that runs a search file.

    Args:
        search_file: says what is searched.
        runs: where its folder is made.
        faults: number of a draw -> the fault that its trial has.
    """
    armed = [f"{index}={fault}" for index, fault in (faults or {}).items()]
    path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    return [sys.executable, "-c", _RUN, str(search_file), str(runs), *armed], {**os.environ, "PYTHONPATH": path}


def all_saved(sweep: Path) -> bool:
    """Whether Tune's newest state holds every trial that began: what it does not hold would begin again."""
    states = sorted((sweep / "tune").glob("experiment_state-*.json"))
    saved = states[-1].read_text() if states else ""
    return all(entry.trial_id in saved for entry in Journal(sweep / "journal").entries())
