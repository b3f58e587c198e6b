"""Where a source's bytes are: files and folders here, web and object stores, the hub, generators.

    path of a SourceSpec -> locate -> LocatedFiles (land, where they are far) -> FileDigest -> open_bytes, decompressed

Example:
    >>> from didact.datasets.places import is_remote
    >>> is_remote("s3://bucket/rows.jsonl"), is_remote("rows.jsonl")
    (True, False)
"""

from didact.datasets.places.archives import COMPRESSIONS, data_suffix, open_bytes
from didact.datasets.places.digests import FileDigest, digest_file
from didact.datasets.places.generated import open_generator
from didact.datasets.places.hub import open_hub
from didact.datasets.places.locate import LocatedFile, locate
from didact.datasets.places.remote import is_remote, land
from didact.datasets.places.remote_stream import RemoteFile, SourceFile

__all__ = [
    "COMPRESSIONS",
    "FileDigest",
    "LocatedFile",
    "RemoteFile",
    "SourceFile",
    "data_suffix",
    "digest_file",
    "is_remote",
    "land",
    "locate",
    "open_bytes",
    "open_generator",
    "open_hub",
]
