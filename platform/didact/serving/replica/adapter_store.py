"""Registered adapter versions as folders on this machine."""

import threading
from collections import OrderedDict
from pathlib import Path

from didact.registry import ModelVersion, Registry
from didact.serving.engine.protocol import AdapterRef

_REMEMBERED = 1024


def version_id(version: ModelVersion) -> str:
    """`NAME:VERSION#CONTENT`: MLflow counts from 1 again when a name is deleted and made anew, so the number alone
    could mean other weights one day."""
    return f"{version.id}#{version.adapter_sha256[:12]}"


class AdapterStore:
    """Downloads each version once. Versions never change, so a folder once verified stays good."""

    def __init__(self, registry: Registry, cache_dir: Path) -> None:
        self._registry = registry
        self._cache_dir = cache_dir
        self._refs: OrderedDict[str, AdapterRef] = OrderedDict()
        self._lock = threading.Lock()
        """One download at a time: two requests for one new version would otherwise write the same folder."""

    def fetch(self, version: ModelVersion) -> AdapterRef:
        """The version's folder, downloaded and verified on first use.

        Raises:
            AdapterError: the files are damaged, unsafe or not those that were registered.
            RegistryError: the registry cannot be reached.
        """
        name = version_id(version)
        known = self._refs.get(name)
        if known is not None:  # never waits for another version's download
            return known
        with self._lock:
            if name not in self._refs:
                self._refs[name] = AdapterRef(name, self._registry.download(version, self._cache_dir))
                if len(self._refs) > _REMEMBERED:
                    self._refs.popitem(last=False)
            return self._refs[name]
