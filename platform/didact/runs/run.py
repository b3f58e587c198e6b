"""The run folder: every path of a run in one place.

<runs>/<name>/
    recipe.json         the resolved spec; replaying needs only this file
    provenance.jsonl    one line an attempt: commit, versions, argv, host
    data.json           what went in: sources, rows, tokens, fingerprints
    prepared.json       addresses of the prepared data, digests of its files
    steps.jsonl         one line an optimizer step: metrics and sample ids
    interruptions.jsonl one line a restart: its class and cause
    quarantine/         rejected rows, a file a source
    checkpoints/        step-00000040/, verified, newest last
    adapter/            the publishable adapter
    report.json         base and adapter side by side; report.html and report.md for people
    workers.jsonl       one line a group of workers: what worker 0 computed on
    trial.json          the sweep and the values drawn, for a trial of a search
    branch/             of a run that went on from a checkpoint of another one: a copy of that checkpoint
    decided.yaml        of a run with data.online_mixing: a recipe that follows the shares that were decided
    verdict.json        what the gate decided about the adapter, and from what
    mlflow.json         the MLflow run this folder belongs to
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from didact import env
from didact.errors import RunError
from didact.files import append_jsonl, write_text
from didact.runs.provenance import provenance
from didact.spec import FinetuneSpec, load_spec, to_json

_CHANGEABLE = ("placement", "tracking", "evaluation", "register_as")
_CHANGEABLE_TRAINING = ("checkpoint_every", "keep_checkpoints", "evaluate_every")
_LENGTH = ("steps", "epochs")


@dataclass(frozen=True, slots=True)
class Run:
    """A finetuning run's folder."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.path.name

    @property
    def recipe(self) -> Path:
        """The resolved spec."""
        return self.path / "recipe.json"

    @property
    def steps(self) -> Path:
        """One JSON line per optimizer step."""
        return self.path / "steps.jsonl"

    @property
    def interruptions(self) -> Path:
        """One JSON line per restart of the workers: its class, cause and the steps done."""
        return self.path / "interruptions.jsonl"

    @property
    def stop_request(self) -> Path:
        """While it exists, workers save a checkpoint and stop."""
        return self.path / "stop"

    @property
    def log(self) -> Path:
        """What didact and the libraries said, in the driver and in the workers."""
        return self.path / "log.txt"

    @property
    def stacks(self) -> Path:
        """Where a worker that hangs writes what its threads were doing: a file for each attempt and worker."""
        return self.path / "stacks"

    @property
    def data(self) -> Path:
        """What went in."""
        return self.path / "data.json"

    @property
    def prepared(self) -> Path:
        """Where the prepared data is, and what it was made from."""
        return self.path / "prepared.json"

    @property
    def checkpoints(self) -> Path:
        """Resumable states."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The publishable adapter."""
        return self.path / "adapter"

    @property
    def start(self) -> Path:
        """The adapter that training began with, where the recipe names one."""
        return self.path / "start"

    @property
    def report(self) -> Path:
        """The evaluation report."""
        return self.path / "report.json"

    @property
    def report_page(self) -> Path:
        """The evaluation report as one HTML page."""
        return self.path / "report.html"

    @property
    def report_text(self) -> Path:
        """The evaluation report as Markdown."""
        return self.path / "report.md"

    @property
    def workers(self) -> Path:
        """What worker 0 of each group computed on: processor, GPU, versions, one JSON line a group."""
        return self.path / "workers.jsonl"

    @property
    def trial(self) -> Path:
        """Of a trial of a search: the sweep, the trial and the values that were drawn."""
        return self.path / "trial.json"

    @property
    def branch(self) -> Path:
        """Checkpoint of another run that this one goes on from."""
        return self.path / "branch"

    @property
    def decided(self) -> Path:
        """Of a run whose shares followed its losses: a recipe that follows the same shares."""
        return self.path / "decided.yaml"

    @property
    def verdict(self) -> Path:
        """What the gate decided, and the digests of what it judged."""
        return self.path / "verdict.json"

    @property
    def quarantine(self) -> Path:
        """Rejected rows."""
        return self.path / "quarantine"

    def spec(self) -> FinetuneSpec:
        """The resolved spec, as written when the run began."""
        return load_spec(FinetuneSpec, self.recipe)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run for this process; the lock dies with the process.

        Raises:
            RunError: another process is at work on this run.
        """
        return locked(self.path, "run")


def of_other_settings(what: str, folder: Path, changed: Sequence[str]) -> RunError:
    """What is said where a folder of that name holds something that was asked for differently.

    Args:
        what: it holds.
        folder: of that name.
        changed: what differs, a line each.
    """
    listed = "\n".join(f"  - {line}" for line in changed)
    return RunError(
        f"{what} {folder.name!r} exists in {folder.parent} with other settings:\n{listed}\n"
        "Set another name or undo the changes"
    )


_OF_KINDS = {"run": "recipe.json", "sweep": "sweep.json", "study": "study.json"}
"""The file that says what a folder below `DIDACT_RUNS` holds."""


def check_name_is_free(folder: Path, what: str) -> None:
    """Nothing, where a folder holds nothing yet, or what it is to hold.

    Args:
        folder: of a run, a sweep or a study.
        what: which of them it is to hold.

    Raises:
        RunError: it holds another of them: their files, and their runs in MLflow, would be mixed up.
    """
    for kind, file in _OF_KINDS.items():
        if kind != what and (folder / file).is_file():
            raise RunError(f"{folder} holds a {kind}; give the {what} another name (name=...)")


def folder_named(name: str) -> Path:
    """A folder below `DIDACT_RUNS` by its name, or else by its path."""
    below = env.runs_dir() / name
    return below if below.is_dir() else Path(name)


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process; the lock dies with the process.

    Args:
        folder: made where it is missing.
        what: it holds, for the error.

    Raises:
        RunError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{what} {folder.name!r} is in use by another process (lock {folder}/.lock)") from None
    try:
        yield
    finally:
        lock.release()


def open_run(path: str | Path) -> Run:
    """An existing run folder.

    Raises:
        RunError: no recipe.json there.
    """
    run = Run(Path(path).absolute())
    if not run.recipe.is_file():
        raise RunError(f"{path} is not a run folder: it has no recipe.json")
    return run


def start_run(spec: FinetuneSpec, runs_dir: Path) -> Run:
    """Create the run's folder, or open it again to resume, and record this attempt's provenance.

    More steps or epochs are no other settings: the run goes on after its end (see `continued.go_on`).

    Raises:
        RunError: a folder of this name holds a run with other settings, or a longer one; the message says which.
    """
    run = Run((runs_dir / spec.name).absolute())
    check_name_is_free(run.path, "run")
    if run.recipe.is_file():
        before = run.spec()
        _check_length(before, spec)
        if changed := differences(identity(before), identity(spec)):
            listed = "\n".join(f"  - {line}" for line in changed)
            raise RunError(
                f"run {spec.name!r} exists in {runs_dir} with other settings:\n{listed}\n"
                "Resuming would mix two runs: set another name (name=...) or undo the changes"
            )
    run.path.mkdir(parents=True, exist_ok=True)
    write_text(run.recipe, to_json(spec))
    append_jsonl(run.path / "provenance.jsonl", provenance())
    return run


def _check_length(before: FinetuneSpec, now: FinetuneSpec) -> None:
    was, asked = before.training, now.training
    if was.length == asked.length:
        return
    if not was.is_shorter_than(asked):
        raise RunError(
            f"run {now.name!r} exists with {was.length}, now {asked.length}: a run can go on to more of the same, not "
            "back; set another name (name=...)"
        )
    bound = "data.curriculum" if now.data.curriculum else "data.max_epochs" if now.data.max_epochs is not None else None
    if bound:
        raise RunError(
            f"run {now.name!r} cannot go on from {was.length} to {asked.length}: {bound} depends on the length of the "
            "run, so other rows would have come before; set another name (name=...)"
        )


def identity(spec: FinetuneSpec) -> dict[str, Any]:
    """The settings that decide the trained weights; the others may change between attempts."""
    values = spec.model_dump(mode="json")
    for key in _CHANGEABLE:
        values.pop(key)
    for key in (*_CHANGEABLE_TRAINING, *_LENGTH):
        values["training"].pop(key)
    return values


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two records of plain data differ, a line for each field."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            line
            for key in keys
            for line in differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if before == after else [f"{path}: was {before!r}, now {after!r}"]
