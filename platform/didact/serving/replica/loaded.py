"""Adapters that an administrator loads from folders while the server runs, beside those of the registry.

    name, path -> LoadedAdapters.load (only below its roots) -> FolderVersion -> requests that name it

They stand in one file that every gateway follows, so all gateways and later starts of the server know them.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock

from didact.adapter_folder import CONFIG, MANIFEST, check_folder, read_plain
from didact.errors import DidactError
from didact.files import write_json
from didact.logs import get_logger
from didact.serving.replica.adapter_store import FolderVersion

_log = get_logger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}")
_LONGEST_PATH = 4096
_SIGNS = (MANIFEST, CONFIG)
"""One of them is in every adapter's folder; a plain PEFT folder has the second only."""


class NotLoaded(DidactError, ValueError):
    """An adapter that cannot be loaded or unloaded so. Its words are for clients: they name no folder."""


class LoadedAdapters:
    """The adapters, by name.

    Args:
        roots: folders below which adapters may lie.
        record: the file that says what is loaded.
    """

    def __init__(self, roots: Sequence[Path], record: Path) -> None:
        self._roots = [root.expanduser().resolve() for root in roots]
        self._record = record
        self._stamp: tuple[int, int, int] | None = None
        self._known: Mapping[str, FolderVersion] = {}
        self._lock = threading.Lock()

    def all(self) -> tuple[FolderVersion, ...]:
        """Those that are loaded, by name."""
        self._look()
        return tuple(self._known[name] for name in sorted(self._known))

    def find(self, name: str) -> FolderVersion | None:
        """The adapter of that name."""
        self._look()
        return self._known.get(name)

    def load(self, name: str, path: str, prepare: Callable[[FolderVersion], None], *, in_place: bool = False) -> None:
        """Offer an adapter under a name; the same one twice is loaded once.

        Args:
            name: for requests.
            path: its folder, or the run's; relative ones are looked for below each root.
            prepare: blocks until the adapter can answer; raises what keeps it from that.
            in_place: replace another adapter of that name.

        Raises:
            NotLoaded: the name or the path will not do, or the name is taken.
            AdapterError: the folder is damaged or does not fit the base.
        """
        if not _NAME.fullmatch(name) or ".." in name:
            raise NotLoaded("lora_name: expected 1 to 128 letters, digits and . _ - /")
        folder = self._folder(path)
        if (folder / MANIFEST).is_file():
            found = check_folder(folder, to_publish=True)
            version = FolderVersion(name, folder, found.sha256, found.manifest_sha256, int(time.time()))
        else:
            version = FolderVersion(name, folder, read_plain(folder).sha256, "", int(time.time()))
        with FileLock(f"{self._record}.lock"):
            before = self.find(name)
            if before is not None and replace(before, created=version.created) == version:
                return
            if before is not None and not in_place:
                raise NotLoaded(
                    f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
                    "'load_inplace' to True."
                )
            prepare(version)
            self._write({**self._known, name: version})

    def unload(self, name: str) -> bool:
        """Offer an adapter no more; running requests end on it. False where it was not loaded."""
        with FileLock(f"{self._record}.lock"):
            if self.find(name) is None:
                return False
            self._write({known: each for known, each in self._known.items() if known != name})
            return True

    def _folder(self, path: str) -> Path:
        """An adapter's folder; the same words for what is elsewhere and for what is not there."""
        refusal = NotLoaded("lora_path: expected the folder of an adapter below one of the server's adapter roots")
        if not path or len(path) > _LONGEST_PATH or "\0" in path:
            raise refusal
        for root in self._roots:
            try:
                folder = (root / path).resolve()
                if not folder.is_relative_to(root):
                    continue
                for candidate in (folder, (folder / "adapter").resolve()):
                    if candidate.is_relative_to(root) and any((candidate / name).is_file() for name in _SIGNS):
                        return candidate
            except (OSError, ValueError, RuntimeError):  # too long, not text for this system, links in a circle
                continue
        raise refusal

    def _look(self) -> None:
        with self._lock:
            try:
                stat = os.stat(self._record)
            except OSError:
                return
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            try:
                values = json.loads(self._record.read_text(encoding="utf-8"))["loaded"]
                versions = [FolderVersion(**{**each, "folder": Path(each["folder"])}) for each in values]
            except (OSError, ValueError, LookupError, TypeError) as error:
                _log.error("loaded adapters stay those that were known: %s cannot be read (%s)", self._record, error)
            else:
                self._known = {each.name: each for each in versions}
            self._stamp = stamp

    def _write(self, known: Mapping[str, FolderVersion]) -> None:
        values = [{**asdict(each), "folder": str(each.folder)} for each in known.values()]
        write_json(self._record, {"loaded": values})
        self._look()
