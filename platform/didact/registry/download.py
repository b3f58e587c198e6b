"""From a registered version to a checked folder on this machine; and the texts that are kept beside its adapter."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from didact import files
from didact.adapter_folder import MANIFEST, check_folder, read_manifest
from didact.errors import AdapterError, DidactError, RegistryError
from didact.registry.asking import asking
from didact.registry.versions import MANIFEST_TAG, ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SOURCE = re.compile(r"runs:/([0-9a-f]{32})/([A-Za-z0-9_-]+)")


def download(client: "MlflowClient", uri: str, version: ModelVersion, cache_dir: Path) -> Path:
    """What `Registry.download` does: fetch a version's files once, check them, and return their folder."""
    if not _SHA256.fullmatch(version.adapter_sha256):
        raise AdapterError(f"{version.id}: found adapter sha256 {version.adapter_sha256!r}; expected 64 hex digits")
    target = cache_dir / "adapters" / version.adapter_sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not _is_verified(target, version):
            stage = tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent)
            with stage, files.new_folder(target) as scratch:
                _fetch_all(client, uri, version, Path(stage.name), scratch)
                _verify(scratch, version)
    return target


def proof_folder(version: ModelVersion) -> str:
    """The artifact path of what is kept beside a version's adapter."""
    # Versions of several names may share the files of one run.
    return f"{version.artifact_path}-proof-{version.name}"


def read_text(client: "MlflowClient", uri: str, version: ModelVersion, path: str) -> str | None:
    """A text artifact of the MLflow run that holds a version's files; None where there is none."""
    folder = path.rpartition("/")[0]
    with asking(uri, f"list the files of {version.id}"):
        if path not in {each.path for each in client.list_artifacts(version.run_id, folder)}:
            return None
    with asking(uri, f"read {path} of {version.id}"), tempfile.TemporaryDirectory() as stage:
        try:
            return Path(client.download_artifacts(version.run_id, path, stage)).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RegistryError(f"{path} of {version.id} is no text: {error}") from None


def _is_verified(folder: Path, version: ModelVersion) -> bool:
    if not folder.is_dir():
        return False
    try:
        _verify(folder, version)
    except AdapterError:
        return False  # damaged on this disk: fetched again
    return True


def _verify(folder: Path, version: ModelVersion) -> None:
    try:
        found = check_folder(folder, to_publish=True)
    except AdapterError as error:
        raise AdapterError(f"{version.id} does not hold what was registered: {error}") from None
    expected_manifest = version.tags.get(MANIFEST_TAG)
    if found.sha256 != version.adapter_sha256 or found.manifest_sha256 != expected_manifest:
        raise AdapterError(
            f"{version.id}: the files are not the registered ones: found adapter sha256 {found.sha256} and manifest "
            f"{found.manifest_sha256}; expected {version.adapter_sha256} and {expected_manifest}"
        )


def _fetch_all(client: "MlflowClient", uri: str, version: ModelVersion, stage: Path, target: Path) -> None:
    """The manifest, then exactly the files it lists: names come from checked bytes, never from a server's listing."""
    source = _SOURCE.fullmatch(version.source)
    if source is None:
        raise AdapterError(f"{version.id}: found source {version.source!r}; expected runs:/RUN_ID/PATH as we register")
    run_id, folder = source.groups()

    def fetch(name: str) -> Path:
        def absent() -> DidactError:
            # MLflow calls every failed download one of a file that does not exist.
            with asking(uri, f"list the files of {version.id}"):
                listed = {each.path: each.file_size for each in client.list_artifacts(run_id, folder)}
            if f"{folder}/{name}" not in listed:
                return AdapterError(f"{version.id} is damaged: its artifact {folder}/{name} is missing")
            return RegistryError(
                f"{name} of {version.id} ({listed[f'{folder}/{name}']} bytes) is in the registry but could not be "
                f"fetched; {shutil.disk_usage(stage).free} bytes are free in {stage.parent}. Make room, or ask again"
            )

        with asking(uri, f"download {name} of {version.id}", if_absent=absent):
            local = Path(client.download_artifacts(run_id, f"{folder}/{name}", str(stage)))
        return Path(shutil.move(local, target / name))

    manifest = fetch(MANIFEST)
    if files.sha256_file(manifest) != version.tags.get(MANIFEST_TAG):
        raise AdapterError(f"{version.id} is damaged: its {MANIFEST} does not match the registered sha256")
    for name in read_manifest(manifest, to_publish=True):
        fetch(name)
