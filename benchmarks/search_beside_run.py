"""A search of eight ASHA trials beside one full run of the same recipe: time, and where a trial's time goes.

    python benchmarks/search_beside_run.py [--steps 64] [--batch 4] [--grace 4] [--factor 4] [--trials 8] [--ways ...]

The bundled base on sums that are generated, by `didact train` and `didact tune`, each with a folder of runs and a cache
of its own. The run takes all cores with a worker on each; trials have one worker, as many at once as there are cores;
`fused` trains all of them together in one worker on all cores. The run is measured before and after the searches.

A trial begins when it is written down in the journal and ends when that says so. Steps are the loop's own seconds;
between them it measures and saves; what is left, starts and ends of processes, is outside the loop. Rows count as made
anew where the cache of tokens was written to after the first trial began.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from didact.devices import cpu_capability
from didact.runs import processor
from didact.tracking import StepRecord, effective_records

ROOT = Path(__file__).resolve().parent.parent
CORES = os.cpu_count() or 1
GOALS = {"wall of the search : of the run, at most": 2.5, "seconds of a trial outside the loop, at most": 3.0}
LIMIT_SECONDS = 3600
WAYS = ("run", "search", "fused")


@dataclass
class Measured:
    """A command that has ended."""

    way: str
    wall: float
    cpu: float
    """Seconds of all its processes."""
    trials: list["Trial"] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    """In the cache of tokens."""
    again: int = 0
    """Of these, written after the first trial had begun."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Where the seconds of one went."""

    steps: int
    learning: float
    """In optimizer steps."""
    measuring: float
    """Between them."""
    outside: float
    """Before the first and after the last."""


class Processes:
    """Processor time of a command and all that it starts, looked at often: a process that ends takes its own along."""

    def __init__(self, command: psutil.Popen) -> None:
        self._command = command
        self._seen: dict[tuple[int, float], float] = {}

    def look(self) -> None:
        """Note what each has used so far."""
        try:
            found = [self._command, *self._command.children(recursive=True)]
        except psutil.Error:
            return
        for process in found:
            try:
                used = process.cpu_times()
                self._seen[process.pid, process.create_time()] = used.user + used.system
            except psutil.Error:
                continue

    @property
    def seconds(self) -> float:
        """Of all that were seen."""
        return sum(self._seen.values())


def recipe(asked: argparse.Namespace) -> dict[str, Any]:
    """Sums of two or three numbers, LoRA on all linear layers; nothing is asked afterwards."""
    options = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2, "seed": 42}
    source = {"name": "chain_sum", "path": "reasoning-gym:chain_sum", "options": options}
    return {
        "name": "run",
        "model": {"base": "smollm2-135m-instruct"},
        "adapter": {"method": "lora", "r": 16, "alpha": 32},
        "data": {"sources": [{**source, "max_rows": 4000, "held_out_rows": asked.held_out}]},
        "tokens": {"max_length": 256},
        "training": {
            "steps": asked.steps,
            "learning_rate": 1e-3,
            "global_batch_size": asked.batch,
            "micro_batch_size": asked.batch // CORES,
            "checkpoint_every": asked.steps,
            "evaluate_every": asked.grace,
        },
        "placement": {"num_workers": CORES, "cpus_per_worker": 1},
        "evaluation": None,
    }


def search(asked: argparse.Namespace, *, fused: bool) -> dict[str, Any]:
    """Rank and learning rate of the recipe, by successive halving."""
    workers = {"placement.num_workers": 1, "placement.cpus_per_worker": CORES if fused else 1}
    return {
        "name": "search",
        "recipe": "recipe.yaml",
        "overrides": {**workers, "training.micro_batch_size": asked.batch},
        "space": {"adapter.r": {"choice": [4, 8, 16]}, "training.learning_rate": {"loguniform": [1e-4, 3e-3]}},
        "num_trials": asked.trials,
        "scheduler": {"grace_steps": asked.grace, "reduction_factor": asked.factor},
        "fused": fused,
        "max_concurrent": asked.trials if fused else CORES,
        "seed": 0,
    }


def measure(way: str, folder: Path, asked: argparse.Namespace) -> Measured:
    """Run one of the ways in `folder`, which is new."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(asked)))
    (folder / "search.yaml").write_text(yaml.safe_dump(search(asked, fused=way == "fused")))
    words = ["train", "recipe.yaml"] if way == "run" else ["tune", "search.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), "DIDACT_CACHE": str(folder / "cache")}
    environment |= {"DIDACT_RUNS": str(folder / "runs"), "HF_HUB_OFFLINE": "1"}
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    journal, began, ended = folder / "runs" / "search" / "journal", dict[str, float](), dict[str, float]()
    with (folder / "log.txt").open("wb") as log:
        start = time.time()
        command = psutil.Popen(
            [sys.executable, "-m", "didact.cli", *words], cwd=folder, env=environment, stdout=log, stderr=log
        )
        processes = Processes(command)
        try:
            while command.poll() is None and time.time() < start + LIMIT_SECONDS:
                note(journal, began, ended)
                processes.look()
                time.sleep(0.1)
        finally:
            wall = time.time() - start
            if command.poll() is None:
                command.terminate()
                command.wait()
    if command.returncode != 0:
        raise SystemExit(f"{way} ended with {command.returncode}:\n{(folder / 'log.txt').read_text()[-4000:]}")
    note(journal, began, ended)
    done = Measured(way, wall, processes.seconds)
    for steps in sorted((folder / "runs").glob("*/steps.jsonl" if way == "run" else "search/trials/*/steps.jsonl")):
        records = effective_records(steps)
        done.steps += len(records)
        if way != "run":
            key = steps.parent.name.rpartition("-")[2]
            done.trials.append(spent(records, ended[key] - began[key]))
    done.rows, done.again = tokenized(folder / "cache" / "tokens", min(began.values(), default=time.time()))
    return done


def note(journal: Path, began: dict[str, float], ended: dict[str, float]) -> None:
    """Which trials have begun and ended by now."""
    for file in journal.glob("*.json"):
        began.setdefault(file.stem, time.time())
        if file.stem not in ended and json.loads(file.read_text())["ended"]:
            ended[file.stem] = time.time()


def spent(records: Sequence[StepRecord], seconds: float) -> Trial:
    """Of a trial that took so long from its beginning to its end."""
    steps = [each.metrics["train/tokens"] / each.metrics["train/tokens_per_second"] for each in records]
    loop = (records[-1].time_ms - records[0].time_ms) / 1000 + steps[0]
    return Trial(len(records), sum(steps), loop - sum(steps), seconds - loop)


def tokenized(cache: Path, first: float) -> tuple[int, int]:
    """Rows that the cache holds, and how many of them were written after a time."""
    rows = again = 0
    for manifest in cache.glob("*/manifest.json"):
        for part in json.loads(manifest.read_text())["parts"]:
            for shard in part["shards"]:
                rows += shard["rows"]
                again += shard["rows"] * ((manifest.parent / shard["name"]).stat().st_mtime > first)
    return rows, again


def print_all(found: Sequence[Measured]) -> None:
    """Tables of what was measured and of what it means."""
    run = min((each.wall for each in found if each.way == "run"), default=float("nan"))
    print(f"\n{processor()} ({cpu_capability()}), {CORES} cores")
    print("\n| way | wall seconds | of the run | CPU seconds | optimizer steps | rows of tokens | of these made anew |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for each in found:
        times = f"{each.wall:.0f} | {each.wall / run:.2f} | {each.cpu:.0f}"
        print(f"| {each.way} | {times} | {each.steps} | {each.rows} | {each.again} |")
    for each in found:
        if each.trials:
            print(f"\n| trial ({each.way}) | steps | in steps, s | measuring and saving, s | outside the loop, s |")
            print("|---|---:|---:|---:|---:|")
            for number, trial in enumerate(each.trials, 1):
                print(
                    f"| {number} | {trial.steps} | {trial.learning:.1f} | {trial.measuring:.1f} | {trial.outside:.1f} |"
                )
            outside = statistics.median(trial.outside for trial in each.trials)
            print(f"\n{each.way}: {outside:.1f} s of a trial outside the loop at the median")
    print(f"\ngoals: {', '.join(f'{name} {goal:g}' for name, goal in GOALS.items())}, none made anew")


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 64), ("batch", 4), ("grace", 4), ("factor", 4), ("trials", 8), ("held-out", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["run", "search", "fused", "run"])
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started is ended as well
    found = []
    with tempfile.TemporaryDirectory(prefix="didact-search-") as folder:
        for number, way in enumerate(asked.ways):
            done = measure(way, Path(folder) / f"{number}-{way}", asked)
            print(f"{way}: {done.wall:.0f} s, {done.cpu:.0f} s of processors", file=sys.stderr, flush=True)
            found.append(done)
    print_all(found)


if __name__ == "__main__":
    main()
