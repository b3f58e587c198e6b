"""Registered adapter versions as folders on this machine."""

import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from didact.adapter_folder import check_folder, copy_plain, is_copy_of_plain, named_base, read_plain
from didact.errors import AdapterError, RegistryError
from didact.files import new_folder
from didact.logs import get_logger
from didact.registry import ModelVersion, Registry
from didact.serving.engine.protocol import AdapterRef

_LOG = get_logger(__name__)
_REMEMBERED = 1024
_Files = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class FolderVersion:
    """An adapter that is served from a folder, without a registry: these bytes of it, whatever it holds later."""

    name: str
    folder: Path
    """A path that every replica sees."""
    sha256: str
    """Of the adapter (`adapter_identity`)."""
    manifest_sha256: str
    """Empty for a plain PEFT folder, which has none."""
    created: int
    """Seconds since 1970."""

    @property
    def id(self) -> str:
        """What clients call it."""
        return self.name


def version_id(version: ModelVersion | FolderVersion | AdapterRef) -> str:
    """`NAME:VERSION#CONTENT`: MLflow counts from 1 again when a name is deleted and made anew, so the number alone
    could mean other weights one day."""
    if isinstance(version, AdapterRef):
        return version.version_id
    if isinstance(version, FolderVersion):
        # Its manifest tells apart also what has the same weights, and another template.
        return f"{version.name}#{(version.manifest_sha256 or version.sha256)[:12]}"
    return f"{version.id}#{version.adapter_sha256[:12]}"


class AdapterStore:
    """Downloads each version once, and again when its files in the cache were removed or changed."""

    def __init__(self, registry: Registry, cache_dir: Path) -> None:
        self._registry = registry
        self._cache_dir = cache_dir
        self._refs: OrderedDict[str, tuple[AdapterRef, _Files]] = OrderedDict()
        self._lock = threading.Lock()
        """One download at a time: two requests for one new version would otherwise write the same folder."""

    def fetch(self, version: ModelVersion | FolderVersion, base_fingerprint: str = "") -> AdapterRef:
        """The version's folder in the cache, downloaded or copied, and verified on first use.

        Args:
            version: the version.
            base_fingerprint: of the base that plain PEFT folders are taken to be for.

        Raises:
            AdapterError: the files are damaged, unsafe or not those that were registered.
            RegistryError: the registry cannot be reached, and the version was not here before.
        """
        name = version_id(version)
        if (known := self._unchanged(name)) is not None:  # never waits for another version's download
            return known
        with self._lock:
            if (known := self._unchanged(name)) is not None:
                return known
            before = self._refs.get(name)
            try:
                if isinstance(version, FolderVersion):
                    folder = _copied(version, self._cache_dir, base_fingerprint)
                else:
                    folder = self._registry.download(version, self._cache_dir)
            except RegistryError:
                if before is None:
                    raise
                return before[0]  # it may still be in memory
            found = AdapterRef(name, folder)
            self._refs[name] = (found, _files(folder))
            if len(self._refs) > _REMEMBERED:
                self._refs.popitem(last=False)
            return found

    def forget(self, adapter: AdapterRef) -> None:
        """Have a version checked again when it is next asked for, as after its files could not be loaded."""
        self._refs.pop(adapter.version_id, None)

    def _unchanged(self, name: str) -> AdapterRef | None:
        known = self._refs.get(name)
        return known[0] if known is not None and known[1] == _files(known[0].folder) else None


def say_of_another_base(folder: Path, name: str, served: str) -> None:
    """Warn of a plain PEFT folder whose configuration names another base than the one that is served.

    Args:
        folder: the adapter's own copy.
        name: of the adapter.
        served: name of the base.
    """
    if not is_copy_of_plain(folder):
        return
    named = named_base(folder).rstrip("/").rpartition("/")[2]
    if named.lower() != served.lower():
        _LOG.warning(
            "adapter %s names base %s, and %s is served: where shapes are alike, nothing else tells that it was "
            "trained on another one",
            *(name, named, served),
        )


def _copied(version: FolderVersion, cache_dir: Path, base_fingerprint: str) -> Path:
    """The adapter's own copy, which nobody changes; made once."""
    plain = not version.manifest_sha256
    name = f"{version.sha256}-on-{base_fingerprint[:12]}" if plain else version.manifest_sha256
    target = cache_dir / "adapters" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not _is_whole(target, version):
            with new_folder(target) as scratch:
                if plain:
                    copy_plain(read_plain(version.folder), scratch, base_fingerprint)
                else:
                    for name in check_folder(version.folder, to_publish=True).names:
                        shutil.copyfile(version.folder / name, scratch / name)
                if not _is_whole(scratch, version):
                    raise AdapterError(f"adapter {version.name} has changed since it was loaded; load it again")
    return target


def _is_whole(folder: Path, version: FolderVersion) -> bool:
    if not folder.is_dir():
        return False
    try:
        found = check_folder(folder, to_publish=bool(version.manifest_sha256))
    except AdapterError:
        return False
    return found.sha256 == version.sha256 and version.manifest_sha256 in ("", found.manifest_sha256)


def _files(folder: Path) -> _Files:
    """What tells, without reading them, whether files were touched: names, sizes in bytes, times of change in ns."""
    try:
        found = {file.name: file.stat() for file in folder.iterdir()}
    except OSError:
        return {}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}
