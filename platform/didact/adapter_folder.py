"""The bytes of an adapter: what may be in its folder, and that they are those that were written.

A pickle runs code when it is loaded and PEFT would load one, so only safetensors, JSON and Markdown pass.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.errors import AdapterError
from didact.files import fingerprint, manifest, manifest_problems, sha256_file, write_json

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CONTRACT = "template_contract.json"
MANIFEST = "adapter.json"
CARD = "README.md"
_ALLOWED = (".safetensors", ".json", ".md")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LARGEST_MANIFEST_BYTES = 1_000_000
_PEFT_NAMES = {"prefix_tuning": "prefix", "prompt_tuning": "prompt"}
"""Methods that PEFT names otherwise."""


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """A folder whose every byte has been checked."""

    path: Path
    sha256: str
    """The adapter's identity."""
    manifest_sha256: str
    """Digest of `adapter.json`, which holds the digests of all other files."""
    names: tuple[str, ...]
    """The files of the adapter, `adapter.json` first, without the card."""


def adapter_identity(entries: dict[str, Any]) -> str:
    """The adapter's sha256: one digest over those of its weights and of its configuration, from manifest entries."""
    return fingerprint([entries[WEIGHTS]["sha256"], entries[CONFIG]["sha256"]])


def check_folder(folder: Path, *, to_publish: bool = False) -> AdapterFolder:
    """Check an adapter folder against its own manifest.

    Args:
        folder: as `models.save_adapter` writes it.
        to_publish: whether it must also say how its base is asked (the template contract).

    Raises:
        AdapterError: a file that may not be there (pickles, symbolic links, folders), is missing, or was changed.
    """
    if not folder.is_dir():
        raise AdapterError(f"no adapter folder {folder}")
    present = {file.name for file in folder.iterdir() if _is_allowed(file)}
    if MANIFEST not in present:
        raise AdapterError(f"adapter {folder} has no {MANIFEST}; expected a folder exported by a didact run")
    entries = read_manifest(folder / MANIFEST, to_publish=to_publish)
    problems = manifest_problems(folder, entries)
    problems += [f"{name} is not in {MANIFEST}" for name in sorted(present - set(entries) - {MANIFEST, CARD})]
    if problems:
        raise AdapterError(f"adapter {folder} is damaged: {'; '.join(problems)}")
    digest = sha256_file(folder / MANIFEST)
    return AdapterFolder(folder, adapter_identity(entries), digest, (MANIFEST, *sorted(entries)))


@dataclass(frozen=True, slots=True)
class PlainAdapter:
    """PEFT's two files of an adapter, without a manifest: nothing says whose base they are for, or how it is asked."""

    path: Path
    method: str
    entries: dict[str, dict[str, Any]]
    """Name -> `{"size": bytes, "sha256": hex}`."""
    base: str | None = None
    """What its configuration calls its base: a name, no proof."""

    @property
    def sha256(self) -> str:
        """The adapter's identity."""
        return adapter_identity(self.entries)


def read_plain(folder: Path) -> PlainAdapter:
    """What PEFT's `save_pretrained` has written; other files in the folder are not looked at.

    Raises:
        AdapterError: one of the two files is missing, a link, or no configuration of an adapter.
    """
    for name in (CONFIG, WEIGHTS):
        file = folder / name
        if file.is_symlink() or not file.is_file():
            raise AdapterError(
                f"adapter {folder} has no plain file {name}; expected what PEFT's save_pretrained writes"
            )
    if (folder / CONFIG).stat().st_size > _LARGEST_MANIFEST_BYTES:
        raise AdapterError(f"adapter {folder}: {CONFIG} is larger than {_LARGEST_MANIFEST_BYTES} bytes")
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = values["peft_type"].lower()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterError(f"adapter {folder}: {CONFIG} is no configuration of PEFT ({type(error).__name__})") from None
    named = values.get("base_model_name_or_path")
    base = named if isinstance(named, str) and named else None
    return PlainAdapter(folder, _PEFT_NAMES.get(kind, kind), manifest(folder, [CONFIG, WEIGHTS]), base)


def copy_plain(adapter: PlainAdapter, scratch: Path, base_fingerprint: str) -> None:
    """Copy the two files and say in a manifest that they are taken for an adapter of this base."""
    for name in adapter.entries:
        shutil.copyfile(adapter.path / name, scratch / name)
    record = {
        "format": 1,
        "base": adapter.base or "that it was loaded on",
        "base_fingerprint": base_fingerprint,
        "method": adapter.method,
        "plain": True,
        "files": adapter.entries,
    }
    write_json(scratch / MANIFEST, record)


def is_copy_of_plain(folder: Path) -> bool:
    """Whether `copy_plain` made a folder: how its base is asked is the base's own way."""
    file = folder / MANIFEST
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("plain") is True


def named_base(folder: Path) -> str:
    """What the manifest of a folder calls its base."""
    return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("base", ""))


def check_finite(folder: Path) -> None:
    """Check every value of an adapter's weights.

    Raises:
        AdapterError: names the first tensor with a NaN or infinite value; also when the file is no safetensors.
    """
    from safetensors import SafetensorError, safe_open  # loads torch, and the bytes are checked without it

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - safe_open is not iterable
                if not tensors.get_tensor(name).isfinite().all():
                    raise AdapterError(f"adapter {folder}: tensor {name} holds NaN or infinite values")
    except SafetensorError as error:
        raise AdapterError(f"adapter {folder}: {WEIGHTS} is not a safetensors file: {error}") from None


def read_manifest(path: Path, *, to_publish: bool = False) -> dict[str, dict[str, Any]]:
    """The `files` of an `adapter.json`: name -> `{"size": bytes, "sha256": hex}`.

    Raises:
        AdapterError: not such a file, a name that is no plain allowed file name, or a needed file left out.
    """
    if path.stat().st_size > _LARGEST_MANIFEST_BYTES:
        raise AdapterError(f"{path} has {path.stat().st_size} bytes; expected under {_LARGEST_MANIFEST_BYTES}")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["files"]
        checked = {str(name): {"size": int(e["size"]), "sha256": str(e["sha256"])} for name, e in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError(f"{path} is not a manifest of adapter files ({type(error).__name__}: {error})") from None
    for name in checked:
        if not _PLAIN_NAME.fullmatch(name) or Path(name).suffix not in _ALLOWED:
            raise AdapterError(f"{path} lists {name!r}; expected plain names ending in {', '.join(_ALLOWED)}")
    needed = (WEIGHTS, CONFIG, CONTRACT) if to_publish else (WEIGHTS, CONFIG)
    missing = [name for name in needed if name not in checked]
    if missing:
        raise AdapterError(f"{path} does not list {', '.join(missing)}; expected a folder exported by a didact run")
    return checked


def _is_allowed(file: Path) -> bool:
    if file.is_symlink() or not file.is_file():
        kind = "the symbolic link" if file.is_symlink() else "the folder"
        raise AdapterError(f"adapter {file.parent} holds {kind} {file.name!r}; expected plain files")
    if file.suffix not in _ALLOWED:
        raise AdapterError(
            f"adapter {file.parent} holds {file.name!r}; expected files ending in {', '.join(_ALLOWED)} "
            "(other formats can run code when loaded)"
        )
    return True
