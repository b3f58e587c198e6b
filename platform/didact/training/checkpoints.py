"""Checkpoints that are whole or absent, verified before use.

A checkpoint is a folder `step-00000040/` with the trained weights, the optimizer's moments, the method's own state
where it has one (all safetensors) and `MANIFEST.json`, written last, with a sha256 of each file. The folder appears by
one rename. Learning rate, dropout and data order are pure functions of the step, and what `data.online_mixing` has
decided is kept with the method's state, so nothing else is needed to continue to the bit.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from typing_extensions import override

from didact.errors import CheckpointError, StorageError
from didact.files import clear_scratch, manifest, manifest_problems, new_folder, write_json
from didact.logs import get_logger
from didact.training.state import TrainedState

_LOG = get_logger(__name__)
_WEIGHTS = "weights.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_METHOD = "method.safetensors"
_MANIFEST = "MANIFEST.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint: the state after `step` optimizer steps."""

    path: Path
    step: int


class Checkpoints(Protocol):
    """What the loop asks of the place where its states are kept."""

    def save(self, step: int, state: TrainedState, method_state: dict[str, torch.Tensor] | None = None) -> object:
        """Keep the state after `step` steps."""

    def newest(self) -> Checkpoint | None:
        """Where to go on; None for the beginning."""

    def load(self, step: int, names: Collection[str]) -> tuple[TrainedState, dict[str, torch.Tensor]]:
        """The state after `step` steps of the parameters `names`, and the method's own state."""
        ...


class CheckpointStore(Checkpoints):
    """The checkpoints of one run."""

    def __init__(self, folder: Path, *, keep: int, identity: str, allow_fresh: bool = False) -> None:
        """
        Args:
            folder: where checkpoints lie; made when missing.
            keep: newest ones to keep.
            identity: fingerprint of everything that decides the weights; a checkpoint of another identity is refused.
            allow_fresh: start from the base when there are checkpoints but none verifies.
        """
        self.folder = folder
        self._keep = keep
        self._identity = identity
        self._allow_fresh = allow_fresh

    @override
    def save(
        self,
        step: int,
        state: TrainedState,
        method_state: dict[str, torch.Tensor] | None = None,
    ) -> Path:
        """Write the state after `step` steps, then drop checkpoints beyond `keep`. Call on one worker only.

        Raises:
            StorageError: it cannot be written; the checkpoints before are untouched.
        """
        path = self.folder / f"step-{step:08d}"
        with _storage(path), new_folder(path) as scratch:
            save_file(state.weights, scratch / _WEIGHTS)
            save_file(state.moments, scratch / _OPTIMIZER)
            names = [_WEIGHTS, _OPTIMIZER]
            if method_state:
                save_file(method_state, scratch / _METHOD)
                names.append(_METHOD)
            entries = manifest(scratch, names)
            write_json(scratch / _MANIFEST, {"format": 1, "step": step, "identity": self._identity, "files": entries})
        with _storage(path):
            for old in self._folders()[self._keep :]:
                self._discard(old)
        return path

    def adopt(self, path: Path) -> None:
        """Begin with a checkpoint of another run that was trained alike up to there; no effect where there is one.

        Args:
            path: a checkpoint's folder.

        Raises:
            CheckpointError: it is damaged.
            StorageError: it cannot be written.
        """
        mine = self.folder / path.name
        if self._folders():
            return
        with _storage(mine), new_folder(mine) as scratch:
            record = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            if problems := manifest_problems(path, record["files"]):
                raise CheckpointError(f"{path} cannot be gone on from: {'; '.join(problems)}")
            shutil.copytree(path, scratch, dirs_exist_ok=True)
            write_json(scratch / _MANIFEST, {**record, "identity": self._identity})

    @override
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, None without any; damaged ones are renamed to `*.corrupt`.

        Raises:
            CheckpointError: there are checkpoints but none verifies, or the newest belongs to another run.
            StorageError: the folder cannot be written.
        """
        with _storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            clear_scratch(self.folder)
        candidates = self._folders()
        reasons: dict[Path, str] = {}
        for path in candidates:
            problems = self._problems(path)
            if not problems:
                self._quarantine(reasons)
                return Checkpoint(path, _step_of(path))
            reasons[path] = "; ".join(problems)
        if self._allow_fresh:
            self._quarantine(reasons)
        elif reasons:
            listed = "\n".join(f"  - {path.name}: {reason}" for path, reason in reasons.items())
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be used:\n{listed}\n"
                "To start again from the base and keep these aside, say --allow-fresh"
            )
        return None

    @override
    def load(self, step: int, names: Collection[str]) -> tuple[TrainedState, dict[str, torch.Tensor]]:
        """The state after `step` steps, and the method's own state.

        Raises:
            CheckpointError: the checkpoint's tensors are not those `names`, or not in safetensors.
        """
        path = self.folder / f"step-{step:08d}"
        with in_use(path):
            weights, moments = _tensors(path / _WEIGHTS), _tensors(path / _OPTIMIZER)
            method_state = _tensors(path / _METHOD) if (path / _METHOD).is_file() else {}
        if weights.keys() != set(names):
            odd = sorted(weights.keys() ^ set(names))
            raise CheckpointError(f"{path} does not fit this model: {len(odd)} tensors differ, such as {odd[0]}")
        return TrainedState(weights, moments), method_state

    def _folders(self) -> list[Path]:
        """Complete checkpoint folders, newest first."""
        return sorted((p for p in self.folder.glob("step-*") if p.name[5:].isdigit()), reverse=True)

    def _problems(self, path: Path) -> list[str]:
        record: dict[str, Any]
        try:
            record = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            problems = manifest_problems(path, record["files"])
            identity, missing = record["identity"], {_WEIGHTS, _OPTIMIZER} - record["files"].keys()
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            return [f"{_MANIFEST} cannot be read ({type(error).__name__}: {error})"]
        if not problems and identity != self._identity:
            raise CheckpointError(
                f"{path} was written by a run with other data, base or settings; give this run another name"
            )
        return problems + [f"{name} is not in {_MANIFEST}" for name in sorted(missing)]

    def _quarantine(self, damaged: dict[Path, str]) -> None:
        """Move damaged checkpoints away once a good one is known; without one they stay, and refuse a start."""
        for path, reason in damaged.items():
            _LOG.warning("checkpoint %s is damaged (%s); set aside as *.corrupt", path, reason)
            aside = path.with_name(f"{path.name}.corrupt")
            if aside.exists():  # the same step was damaged before
                shutil.rmtree(aside)
            path.rename(aside)

    def _discard(self, path: Path) -> None:
        """Rename first, so that a half-removed folder never looks like a checkpoint. One in use stays this time."""
        with contextlib.ExitStack() as held:
            if (path / _MANIFEST).is_file():
                try:
                    held.enter_context(_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
                except BlockingIOError:
                    return
            self._remove(path)

    def _remove(self, path: Path) -> None:
        doomed = path.with_name(f".{path.name}.discarded.tmp")
        path.rename(doomed)
        clear_scratch(self.folder)


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{file} is no safetensors file, and nothing else is loaded: {error}") from error


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


@contextlib.contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Keep a checkpoint from being dropped while the block reads it, from any process."""
    with _locked(path, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def _locked(path: Path, operation: int) -> Iterator[None]:
    with (path / _MANIFEST).open("rb" if operation == fcntl.LOCK_SH else "rb+") as file:  # as NFS wants it
        fcntl.flock(file, operation)  # ends with the file, also when the process is killed
        yield


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{path} cannot be written: {error}. What was saved before is whole: make room or give access, then run "
            "the same command again"
        ) from error
