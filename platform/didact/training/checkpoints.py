"""Checkpoints that are whole or absent, verified before use.

A checkpoint is a folder `step-00000040/` with the trained weights, the optimizer's moments, the method's own state
where it has one (all safetensors) and `MANIFEST.json`, written last, with a sha256 of each file. The folder appears by
one rename. Learning rate, dropout and data order are pure functions of the step, so nothing else is needed to continue
to the bit.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from didact.errors import CheckpointError
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


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, *, keep: int, identity: str) -> None:
        """
        Args:
            folder: where checkpoints lie; made when missing.
            keep: newest ones to keep.
            identity: fingerprint of everything that decides the weights; a checkpoint of another identity is refused.
        """
        self.folder = folder
        self._keep = keep
        self._identity = identity

    def save(
        self,
        step: int,
        state: TrainedState,
        method_state: dict[str, torch.Tensor] | None = None,
    ) -> Path:
        """Write the state after `step` steps, then drop checkpoints beyond `keep`. Call on one worker only."""
        path = self.folder / f"step-{step:08d}"
        with new_folder(path) as scratch:
            save_file(state.weights, scratch / _WEIGHTS)
            save_file(state.moments, scratch / _OPTIMIZER)
            names = [_WEIGHTS, _OPTIMIZER]
            if method_state:
                save_file(method_state, scratch / _METHOD)
                names.append(_METHOD)
            entries = manifest(scratch, names)
            write_json(scratch / _MANIFEST, {"format": 1, "step": step, "identity": self._identity, "files": entries})
        for old in self._folders()[self._keep :]:
            self._discard(old)
        return path

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, None without any; damaged ones are renamed to `*.corrupt`.

        Raises:
            CheckpointError: there are checkpoints but none verifies, or the newest belongs to another run.
        """
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
        if reasons:
            listed = "\n".join(f"  - {path.name}: {reason}" for path, reason in reasons.items())
            raise CheckpointError(
                f"no checkpoint in {self.folder} can be used:\n{listed}\n"
                "To start again from the base, give the run another name or remove its folder"
            )
        return None

    def load(self, step: int, names: Collection[str]) -> tuple[TrainedState, dict[str, torch.Tensor]]:
        """The state after `step` steps, and the method's own state.

        Raises:
            CheckpointError: the checkpoint's tensors are not those `names`.
        """
        path = self.folder / f"step-{step:08d}"
        weights = load_file(path / _WEIGHTS)
        if weights.keys() != set(names):
            odd = sorted(weights.keys() ^ set(names))
            raise CheckpointError(f"{path} does not fit this model: {len(odd)} tensors differ, such as {odd[0]}")
        method_state = load_file(path / _METHOD) if (path / _METHOD).is_file() else {}
        return TrainedState(weights, load_file(path / _OPTIMIZER)), method_state

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
            _LOG.warning("checkpoint %s is damaged (%s); falling back to the one before", path, reason)
            path.rename(path.with_name(f"{path.name}.corrupt"))

    def _discard(self, path: Path) -> None:
        """Rename first, so that a half-removed folder never looks like a checkpoint."""
        doomed = path.with_name(f".{path.name}.discarded.tmp")
        path.rename(doomed)
        clear_scratch(self.folder)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
