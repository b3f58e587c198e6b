"""A digest that tells base models apart without reading all of them."""

import hashlib
import json
import struct
from pathlib import Path

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
