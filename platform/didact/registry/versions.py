"""What the registry holds, and how it is named: `NAME`, `NAME@ALIAS`, `NAME:VERSION`."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import overload

from rich.markup import escape
from rich.table import Table
from typing_extensions import override

from didact.display import Shown
from didact.errors import RegistryError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ALIAS = re.compile(r"(?!latest$)(?![vV]\d+$)[A-Za-z0-9_-]{1,128}")  # MLflow keeps `latest` and `v3` for itself

_FORCED = ".forced"

CHAMPION = "champion"
CANDIDATE = "candidate"

SHA_TAG = "adapter_sha256"
MANIFEST_TAG = "manifest_sha256"
VERDICT_TAG = "verdict"
"""Digest of the verdict that is kept with the version."""


def artifact_path(source: str) -> str:
    """The last part of `runs:/RUN_ID/ARTIFACT_PATH`, where MLflow says that the files of a version are."""
    return source.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered adapter."""

    name: str
    version: int
    aliases: tuple[str, ...]
    adapter_sha256: str
    """Digest over weights and configuration (`adapter_identity`); also the name of its folder in the cache."""
    run_id: str | None
    """MLflow run whose artifacts hold the files."""
    source: str
    """`runs:/RUN_ID/ARTIFACT_PATH`."""
    tags: dict[str, str]
    created_ms: int
    """Milliseconds since 1970."""

    @property
    def id(self) -> str:
        """`NAME:VERSION`, which `Registry.resolve` takes back."""
        return f"{self.name}:{self.version}"

    @property
    def artifact_path(self) -> str:
        """The folder of its adapter among the artifacts of its MLflow run."""
        return artifact_path(self.source)

    @property
    def gate(self) -> str:
        """What the gate said, and each alias that the version got against it with the reason."""
        forced = (tag.removesuffix(_FORCED) for tag in self.tags if tag.endswith(_FORCED))
        told = (f"@{alias} forced: {_reason(self.tags[alias + _FORCED])}" for alias in sorted(forced))
        return "; ".join((self.tags.get("gate", ""), *told)).removeprefix("; ")


@dataclass(frozen=True, slots=True)
class Versions(Shown, Sequence[ModelVersion]):
    """Registered adapters, which show themselves as a table."""

    versions: tuple[ModelVersion, ...]

    @overload
    def __getitem__(self, index: int) -> ModelVersion: ...
    @overload
    def __getitem__(self, index: slice) -> "Versions": ...
    @override
    def __getitem__(self, index: int | slice) -> "ModelVersion | Versions":
        return Versions(self.versions[index]) if isinstance(index, slice) else self.versions[index]

    @override
    def __len__(self) -> int:
        return len(self.versions)

    @override
    def __rich__(self) -> Table | str:
        if not self.versions:
            return "nothing is registered yet: `didact register RUN --name NAME` makes a run a version"
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("Version", no_wrap=True)
        table.add_column("Aliases", no_wrap=True)
        for column in ("Method", "Base", "Gate"):
            table.add_column(column, overflow="fold")
        table.add_column("Made (UTC)", no_wrap=True)
        for version in self.versions:
            made = datetime.fromtimestamp(version.created_ms / 1000, UTC)
            table.add_row(
                *(escape(version.id), " ".join(f"@{alias}" for alias in version.aliases)),
                *(escape(version.tags.get(tag, "")) for tag in ("method", "base")),
                escape(version.gate),
                made.strftime("%Y-%m-%d %H:%M"),
            )
        return table


@dataclass(frozen=True, slots=True)
class Holding:
    """What the registry holds of one name."""

    name: str
    created_ms: int
    """When the name was made: one that is deleted and made again counts its versions from 1 again."""
    aliases: dict[str, int]
    """Alias -> version."""
    newest: ModelVersion | None
    """None where the newest version is no adapter of didact."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed `NAME`, `NAME@ALIAS` or `NAME:VERSION`."""

    name: str
    alias: str | None = None
    version: int | None = None


def parse_reference(reference: str) -> Reference:
    """The parts of a reference.

    Raises:
        RegistryError: none of the three forms.
    """
    name, at, alias = reference.partition("@")
    if at:
        return Reference(check_name(name), alias=check_alias(alias))
    name, colon, version = reference.partition(":")
    if colon and not (version.isascii() and version.isdigit()):
        raise RegistryError(f"found {reference!r}; expected NAME, NAME@ALIAS or NAME:VERSION with a whole number")
    return Reference(check_name(name), version=int(version) if colon else None)


def meant_by_bare_name(aliases: Collection[str], default_alias: str) -> str | None:
    """The alias that a name alone goes by: `default_alias`, else `candidate`; None where the newest version is meant.

    Args:
        aliases: those that the name has.
        default_alias: the one to prefer.
    """
    return next((alias for alias in (default_alias, CANDIDATE) if alias in aliases), None)


def _reason(note: str) -> str:
    try:
        return str(json.loads(note)["forced"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return note


def check_name(name: str) -> str:
    """`name` itself.

    Raises:
        RegistryError: characters that do not belong in the name of a registered model.
    """
    if not _NAME.fullmatch(name):
        raise RegistryError(
            f"model name: found {name!r}; expected 1 to 128 letters, digits, '_', '.' or '-', beginning with a letter "
            "or digit"
        )
    return name


def check_alias(alias: str) -> str:
    """`alias` itself.

    Raises:
        RegistryError: characters that do not belong in an alias, or one that MLflow reserves.
    """
    if not _ALIAS.fullmatch(alias):
        raise RegistryError(
            f"alias: found {alias!r}; expected letters, digits, '_' or '-', and neither 'latest' nor 'v' with a number"
        )
    return alias


def registered(version: ModelVersion, *, is_refused: bool) -> str:
    """How the end of a run names its version, with its aliases.

    Args:
        version: as it stands now.
        is_refused: whether the gate of now refuses it, so that an alias it bears is one of before.
    """
    aliases = " ".join(f"@{alias}" for alias in version.aliases) or "no alias"
    kept = ", from before: this gate refuses it" if is_refused and version.aliases else ""
    return f"registered {version.id} ({aliases}{kept})"


def spoken(version: int | None) -> str:
    """What an alias points to, in words."""
    return "nothing" if version is None else f"version {version}"
