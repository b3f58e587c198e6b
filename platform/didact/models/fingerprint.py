"""Digests of base models: a quick one that names what an adapter belongs to, and one over every byte."""

import hashlib
import json
import struct
from pathlib import Path

from didact.env import cache_dir
from didact.files import fingerprint, sha256_file, write_text

_SAMPLED_BLOCKS = 64
_BLOCK_BYTES = 65_536


def folder_fingerprint(folder: Path) -> str:
    """Over the architecture in config.json and, for each weight file, its size, safetensors header and 64 blocks.

    It recognises a base in well under a second also for large ones; it is no proof against a forger.
    """
    digest = hashlib.sha256()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if not key.startswith("_") and key != "transformers_version"}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    for file in weights:
        digest.update(file.name.encode())
        _digest_weights(file, digest)
    return digest.hexdigest()


def weights_digest(folder: Path) -> str:
    """Over every byte of the weights: what is computed from them may be kept under it.

    A merge that changes a few layers may leave `folder_fingerprint` as it was. A file is read once, and again when its
    size or time of change is another.
    """
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return fingerprint([folder_fingerprint(folder), *map(_file_digest, weights)])


def _file_digest(file: Path) -> str:
    real = file.resolve()
    stat = real.stat()
    known = [str(real), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    kept = cache_dir() / "models" / "digests" / f"{fingerprint(known)}.txt"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    digest = sha256_file(real)
    write_text(kept, digest)
    return digest


def _digest_weights(file: Path, digest: "hashlib._Hash") -> None:
    size = file.stat().st_size
    digest.update(str(size).encode())
    with file.open("rb") as stream:
        if file.suffix == ".safetensors":
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            digest.update(stream.read(min(header_bytes, 64 * 2**20)))
        for block in range(_SAMPLED_BLOCKS):
            stream.seek(size * block // _SAMPLED_BLOCKS)
            digest.update(stream.read(_BLOCK_BYTES))
