"""What an MLflow registry holds of adapters: versions, aliases, verdicts and the bytes, checked on the way out."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didact.adapter_folder import CARD
from didact.errors import NotRegistered, RegistryError
from didact.files import sha256_text
from didact.registry.asking import asking
from didact.registry.download import download, proof_folder, read_text
from didact.registry.moves import Move, moves_of
from didact.registry.verdict import FILE as VERDICT_FILE
from didact.registry.verdict import Verdict
from didact.registry.versions import (
    CHAMPION,
    SHA_TAG,
    VERDICT_TAG,
    Holding,
    ModelVersion,
    Versions,
    check_alias,
    check_name,
    meant_by_bare_name,
    parse_reference,
)
from didact.tracking import mlflow_tracker
from didact.tracking.uris import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 1000


class RegistryReader:
    """Questions to the registry at an absolute MLflow address (see `tracking.resolve_uri`); changes nothing."""

    def __init__(self, uri: str) -> None:
        """Connect; a server is first contacted by the first question, and a database made by the first change.

        Args:
            uri: MLflow server or database.
        """
        self.uri = uri
        if not self._is_unmade:
            self._client = self._connect()

    @functools.cached_property
    def _client(self) -> "MlflowClient":
        return self._connect()

    def _connect(self) -> "MlflowClient":
        with asking(self.uri, "be opened"):
            return mlflow_tracker.connect(self.uri)

    @property
    def _is_unmade(self) -> bool:
        """Whether there is no database yet: MLflow takes many seconds to make one, only to say that it is empty."""
        database = sqlite_file(self.uri)
        return database is not None and not database.exists()

    def resolve(self, reference: str, default_alias: str = CHAMPION) -> ModelVersion:
        """The version meant by `NAME`, `NAME@ALIAS` or `NAME:VERSION`.

        A bare name means `default_alias`, else `candidate`, else the newest version.

        Raises:
            NotRegistered: nothing of that name; the message lists what there is.
            RegistryError: not a reference, or MLflow is dead or refuses.
        """
        wanted = parse_reference(reference)
        aliases = self._aliases(wanted.name)
        if wanted.version is not None:
            return self._version(wanted.name, wanted.version, aliases)
        alias = wanted.alias or meant_by_bare_name(aliases, default_alias)
        if alias in aliases:
            return self._version(wanted.name, aliases[alias], aliases)
        versions = self._versions(wanted.name, aliases)
        if wanted.alias or not versions:
            raise self._absent(reference, wanted.name, aliases)
        return versions[0]

    def version(self, name: str, number: int) -> ModelVersion:
        """One version, without its aliases.

        Raises:
            NotRegistered: no such version.
            RegistryError: MLflow is dead or refuses, or it is no adapter.
        """
        return self._version(name, number, {})

    def holdings(self) -> tuple[Holding, ...]:
        """Every name with its aliases and its newest version, by one question however many versions there are.

        Raises:
            RegistryError: MLflow is dead or refuses.
        """
        found = []
        for model in self._registered():
            aliases = {alias: int(number) for alias, number in model.aliases.items()}
            newest = max(model.latest_versions or (), key=lambda version: int(version.version), default=None)
            ours = newest is not None and SHA_TAG in newest.tags
            head = _model_version(newest, aliases) if ours else None
            found.append(Holding(model.name, int(model.creation_timestamp), aliases, head))
        return tuple(found)

    def list(self, name: str | None = None) -> Versions:
        """Registered adapters, by name, newest first. Models of other tools are left out.

        Args:
            name: of a registered model; None for all.

        Raises:
            RegistryError: MLflow is dead or refuses.
        """
        named = sorted(self._models().items())
        return Versions(
            tuple(
                version for each, aliases in named if name in (None, each) for version in self._versions(each, aliases)
            )
        )

    def names(self) -> tuple[str, ...]:
        """Names that have at least one registered adapter, sorted.

        Raises:
            RegistryError: MLflow is dead or refuses.
        """
        return tuple(sorted({version.name for version in self.list()}))

    def verdict(self, version: ModelVersion) -> Verdict | None:
        """The verdict that is kept with a version; None for one that has none.

        Raises:
            RegistryError: it is not the one that was kept, or MLflow is dead or refuses.
        """
        sha256 = version.tags.get(VERDICT_TAG)
        if sha256 is None:
            return None
        text = self.read_proof(version, VERDICT_FILE)
        if text is None or sha256_text(text) != sha256:
            how = "is gone" if text is None else "was changed: its digest is not the recorded one"
            raise RegistryError(f"the verdict of {version.id} {how}")
        return Verdict.from_json(text, f"the verdict of {version.id}")

    def moves(self, name: str, alias: str = CHAMPION) -> tuple[Move, ...]:
        """The last tries to move an alias, refused ones too, oldest first.

        Raises:
            RegistryError: no such model, or MLflow is dead or refuses.
        """
        with asking(self.uri, f"read {name}"):
            return moves_of(self._client.get_registered_model(check_name(name)).tags, check_alias(alias))

    def download(self, version: ModelVersion, cache_dir: Path) -> Path:
        """The adapter's files in `<cache_dir>/adapters/<sha256>/`, every byte checked; fetched only when not there.

        Raises:
            AdapterError: what MLflow holds is not what was registered. Nothing is left in the cache.
            RegistryError: MLflow is dead or refuses.
        """
        return download(self._client, self.uri, version, cache_dir)

    def read_card(self, version: ModelVersion) -> str | None:
        """A version's card; None where it has none.

        Raises:
            RegistryError: MLflow is dead or refuses.
        """
        return read_text(self._client, self.uri, version, f"{version.artifact_path}/{CARD}")

    def read_proof(self, version: ModelVersion, name: str) -> str | None:
        """A text that `keep_proof` kept; None where there is none of that name.

        Raises:
            RegistryError: MLflow is dead or refuses, or holds something that is no text.
        """
        return read_text(self._client, self.uri, version, f"{proof_folder(version)}/{name}")

    def _models(self) -> dict[str, dict[str, int]]:
        """Name -> alias -> version."""
        return {
            model.name: {alias: int(number) for alias, number in model.aliases.items()} for model in self._registered()
        }

    def _registered(self) -> Sequence[Any]:
        models: list[Any] = []
        token: str | None = None if self._is_unmade else ""
        with asking(self.uri, "list models"):
            while token is not None:
                page = self._client.search_registered_models(max_results=_PAGE, page_token=token or None)
                models += page
                token = page.token or None
        return models

    def _aliases(self, name: str) -> dict[str, int]:
        """Alias -> version of a registered model."""

        def absent() -> NotRegistered:
            return NotRegistered(f"no registered model {name!r}; registered: {', '.join(self.names()) or 'none'}")

        if self._is_unmade:
            raise absent()
        with asking(self.uri, f"read {name}", if_absent=absent):
            model = self._client.get_registered_model(name)
        return {alias: int(number) for alias, number in model.aliases.items()}

    def _version(self, name: str, number: int, aliases: dict[str, int] | None = None) -> ModelVersion:
        aliases = self._aliases(name) if aliases is None else aliases

        def absent() -> NotRegistered:
            return self._absent(f"{name}:{number}", name, self._aliases(name))

        with asking(self.uri, f"read {name}:{number}", if_absent=absent):
            found = self._client.get_model_version(name, str(number))
        if SHA_TAG not in found.tags:
            raise RegistryError(f"{name}:{number} is not an adapter registered by didact: it has no tag {SHA_TAG}")
        return _model_version(found, aliases)

    def _versions(self, name: str, aliases: dict[str, int]) -> tuple[ModelVersion, ...]:
        """The adapters of a name, newest first."""
        found: list[Any] = []
        token: str | None = ""
        with asking(self.uri, f"list versions of {name}"):
            while token is not None:
                page = self._client.search_model_versions(
                    f"name = '{name}'", max_results=_PAGE, page_token=token or None
                )
                found += page
                token = page.token or None
        versions = [_model_version(version, aliases) for version in found if SHA_TAG in version.tags]
        return tuple(sorted(versions, key=lambda version: -version.version))

    def _absent(self, wanted: str, name: str, aliases: dict[str, int]) -> NotRegistered:
        numbers = ", ".join(str(version.version) for version in self._versions(name, aliases)) or "none"
        spoken = ", ".join(f"{alias} -> {number}" for alias, number in sorted(aliases.items())) or "none"
        return NotRegistered(f"{wanted} is not registered; versions of {name}: {numbers}; aliases: {spoken}")


def _model_version(found: Any, aliases: Mapping[str, int]) -> ModelVersion:
    number = int(found.version)
    return ModelVersion(
        name=found.name,
        version=number,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        adapter_sha256=found.tags[SHA_TAG],
        run_id=found.run_id or None,
        source=found.source,
        tags=dict(found.tags),
        created_ms=int(found.creation_timestamp),
    )
