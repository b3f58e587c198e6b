"""Files and batches in one folder, which all gateways share and which outlives them.

    files/file-X.json, file-X.data   what was uploaded, and results
    batches/batch_X/batch.json       state, as OpenAI tells it; output.jsonl, errors.jsonl while it runs

Whoever is not the owner does not see a file or a batch.
"""

import contextlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from didact.files import write_json
from didact.spec import BatchesSpec

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
ACTIVE: tuple[Status, ...] = ("validating", "in_progress", "finalizing", "cancelling")
_ID = re.compile(r"(file-|batch_)[0-9a-f]{32}")
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file."""

    id: str
    owner: str | None
    """Name of the key that made it; None where the API is open."""
    filename: str
    purpose: str
    bytes: int
    created_at: int
    """Seconds since 1970."""
    expires_at: int

    def told(self) -> dict[str, Any]:
        """As OpenAI tells it."""
        values = {name: value for name, value in asdict(self).items() if name != "owner"}
        return {"object": "file", **values, "status": "processed"}


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch."""

    id: str
    owner: str | None
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Status
    created_at: int
    """This and all other times: seconds since 1970."""
    expires_at: int
    metadata: dict[str, str] | None = None
    times: dict[str, int] = field(default_factory=dict)
    """`in_progress_at`, `completed_at`, ... as far as it has come."""
    errors: list[dict[str, Any]] = field(default_factory=list)
    """Why it is no batch."""
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None

    def told(self) -> dict[str, Any]:
        """As OpenAI tells it."""
        counts = {"total": self.total, "completed": self.completed, "failed": self.failed}
        left_out = ("owner", "times", "errors", "total", "completed", "failed")
        values = {name: value for name, value in asdict(self).items() if name not in left_out}
        errors = {"object": "list", "data": self.errors} if self.errors else None
        return {"object": "batch", **values, **self.times, "errors": errors, "request_counts": counts}


class BatchStore:
    """The folder."""

    def __init__(self, spec: BatchesSpec) -> None:
        folder = Path(spec.folder).expanduser()
        self._files, self._batches = folder / "files", folder / "batches"
        self._spec = spec

    def room(self) -> int:
        """Bytes that may still come."""
        used = sum(each.stat().st_size for each in self._files.glob("*.data")) if self._files.is_dir() else 0
        return int(self._spec.max_folder_gib * 2**30) - used

    def scratch(self) -> Path:
        """A new path for a file that is being received."""
        self._files.mkdir(parents=True, exist_ok=True)
        return self._files / f".{uuid.uuid4().hex}.part"

    def keep(
        self, content: Path, owner: str | None, filename: str, purpose: str, number: str | None = None
    ) -> StoredFile:
        """Make a file of the content at a path, which is moved; after a kill in between, do it again.

        Args:
            content: where its bytes are now.
            owner: whose it is.
            filename: what it is called.
            purpose: `batch` or `batch_output`.
            number: its id; None for a new one.
        """
        now = int(time.time())
        expires = now + int(self._spec.keep_days * _DAY_SECONDS)
        size = content.stat().st_size
        found = StoredFile(number or new_file_id(), owner, filename, purpose, size, now, expires)
        write_json(self._files / f"{found.id}.json", asdict(found))
        content.replace(self.content(found))
        return found

    def content(self, file: StoredFile) -> Path:
        """Where a file's bytes are."""
        self._files.mkdir(parents=True, exist_ok=True)
        return self._files / f"{file.id}.data"

    def file(self, number: str, owner: str | None) -> StoredFile | None:
        """A file by its id."""
        values = _read(self._files / f"{number}.json") if _ID.fullmatch(number) else None
        return StoredFile(**values) if values is not None and values["owner"] == owner else None

    def files(self, owner: str | None) -> list[StoredFile]:
        """All files of an owner, the newest first."""
        found = (_read(each) for each in self._files.glob("file-*.json"))
        mine = [StoredFile(**each) for each in found if each is not None and each["owner"] == owner]
        return sorted(mine, key=lambda each: (each.created_at, each.id), reverse=True)

    def delete(self, file: StoredFile) -> None:
        """Remove a file."""
        (self._files / f"{file.id}.json").unlink(missing_ok=True)
        self.content(file).unlink(missing_ok=True)

    def create(self, batch: StoredBatch) -> None:
        """Keep a new batch."""
        write_json(self._batches / batch.id / "batch.json", asdict(batch))

    def batch(self, number: str, owner: str | None) -> StoredBatch | None:
        """A batch by its id."""
        values = _read(self._batches / number / "batch.json") if _ID.fullmatch(number) else None
        return StoredBatch(**values) if values is not None and values["owner"] == owner else None

    def batches(self) -> list[StoredBatch]:
        """All batches, the newest first."""
        found = (_read(each) for each in self._batches.glob("batch_*/batch.json"))
        return sorted(
            (StoredBatch(**each) for each in found if each is not None),
            key=lambda each: (each.created_at, each.id),
            reverse=True,
        )

    def folder(self, number: str) -> Path:
        """Where a batch's results are while it runs."""
        return self._batches / number

    def change(self, number: str, changed: Callable[[StoredBatch], StoredBatch]) -> StoredBatch:
        """Change a batch's record; several processes may."""
        place = self._batches / number
        with FileLock(place / ".record.lock"):
            values = _read(place / "batch.json")
            assert values is not None, "records are removed with their folder only"
            before = StoredBatch(**values)
            after = changed(before)
            if after != before:
                write_json(place / "batch.json", asdict(after))
            return after

    @contextlib.contextmanager
    def claimed(self, number: str) -> Iterator[bool]:
        """Inside the block, this process alone runs the batch; False where another one does."""
        lock = FileLock(self._batches / number / ".run.lock")
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # also where the folder has just been removed
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def sweep(self, now: float) -> None:
        """Remove what is too old, and uploads that a kill left unfinished."""
        if not self._files.is_dir():
            return
        for each in self._files.glob("file-*.json"):
            values = _read(each)
            if values is not None and values["expires_at"] < now:
                self.delete(StoredFile(**values))
        for part in self._files.glob(".*.part"):
            with contextlib.suppress(OSError):
                if part.stat().st_mtime < now - _DAY_SECONDS:
                    part.unlink()
        for batch in self.batches():
            if batch.status not in ACTIVE and batch.created_at + self._spec.keep_days * _DAY_SECONDS < now:
                shutil.rmtree(self.folder(batch.id), ignore_errors=True)


def new_file_id() -> str:
    """An id for a file."""
    return f"file-{uuid.uuid4().hex}"


def moved(batch: StoredBatch, status: Status, **changes: Any) -> StoredBatch:
    """A batch in its next state, with the time of it."""
    name = "in_progress_at" if status == "in_progress" else f"{status}_at"
    return replace(batch, status=status, times={**batch.times, name: int(time.time())}, **changes)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return values
