"""Registered adapters in MLflow: versions made once, aliases moved knowingly, bytes checked on the way out.

MLflow itself registers the same files twice without a word, overwrites aliases and never checks artifact bytes. So
changes to a name happen under a lock of this machine's cache folder, after looking first.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from didact import env
from didact.adapter_folder import CARD, AdapterFolder, check_finite, check_folder
from didact.errors import NotRegistered, RegistryError
from didact.files import sha256_text
from didact.registry.asking import asking
from didact.registry.card.metadata import without_metadata
from didact.registry.download import download, proof_folder, read_text
from didact.registry.versions import (
    CHAMPION,
    MANIFEST_TAG,
    SHA_TAG,
    Holding,
    ModelVersion,
    Versions,
    check_alias,
    check_name,
    meant_by_bare_name,
    parse_reference,
)
from didact.tracking import mlflow_tracker

ANY: Any = object()
"""For `Registry.promote`: whatever the alias points to now."""
_PREVIOUS = "{alias}.previous"
_EXPERIMENT = "didact-adapters"
_LONGEST_DESCRIPTION = 5000
_PAGE = 1000


class Registry:
    """The registry at an absolute MLflow address (see `tracking.resolve_uri`)."""

    def __init__(self, uri: str, artifact_root: Path | None = None) -> None:
        """Connect; a server is first contacted by the first question.

        Args:
            uri: MLflow server or database.
            artifact_root: where adapters registered without a run keep their files; default beside a sqlite database.
                A server chooses its own.
        """
        self.uri = uri
        self._artifact_root = artifact_root
        with asking(uri, "be opened"):
            self._client = mlflow_tracker.connect(uri)

    def register(
        self, name: str, adapter_dir: Path, *, run_id: str | None, tags: Mapping[str, str], card: str, alias: str | None
    ) -> ModelVersion:
        """Make a version of an adapter folder, once: the same adapter again gives the version it has.

        Args:
            name: registered model, created when new.
            adapter_dir: holds `adapter_model.safetensors`, `adapter_config.json`, `template_contract.json`, and
                `adapter.json` that lists them with size and sha256.
            run_id: MLflow run that gets the files as artifacts; None makes a small run for them.
            tags: lineage, see `Lineage.tags`.
            card: Markdown; kept as the artifact README.md, and cut to MLflow's 5000 characters as description.
            alias: set last, when everything is in place; None sets none.

        Raises:
            AdapterError: the folder is damaged, holds files that may not be registered, or values that are not finite.
            RegistryError: a name or alias that cannot be, or MLflow is dead or refuses.
        """
        check_name(name)
        if alias is not None:
            check_alias(alias)
        folder = check_folder(adapter_dir, to_publish=True)
        check_finite(adapter_dir)
        with self._changing(name):
            version = self._oldest_with(name, folder.sha256)
            if version is None:
                with asking(self.uri, f"register {name}"):
                    self._create(name, folder, run_id, tags, card)
                version = self._oldest_with(name, folder.sha256, delete_others=True)
            if version is None:
                raise RegistryError(f"registry {self.uri} took a version of {name} but does not list it")
            if alias is not None:
                self._move_alias(name, alias, version)
            return self._version(name, version)

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

    def promote(
        self, name: str, version: int, alias: str = CHAMPION, expected_current: int | None = ANY
    ) -> ModelVersion:
        """Point `alias` to `version`, and remember where it pointed before (see `rollback`).

        Args:
            name: registered model.
            version: an existing version.
            alias: the alias to move.
            expected_current: version that the alias must point to now (None: to nothing), so that a decision made on
                old knowledge does not undo a newer one.

        Raises:
            NotRegistered: no such model or version.
            RegistryError: the alias has moved meanwhile, or MLflow is dead or refuses.
        """
        check_alias(alias)
        with self._changing(check_name(name)):
            current = self._aliases(name).get(alias)
            if expected_current is not ANY and current != expected_current:
                raise RegistryError(
                    f"{name}@{alias} points to {_spoken(current)}, expected {_spoken(expected_current)}: it was moved "
                    "meanwhile; look at what it is now and decide again"
                )
            self._version(name, version)
            self._move_alias(name, alias, version)
            return self._version(name, version)

    def rollback(self, name: str, alias: str = CHAMPION) -> ModelVersion:
        """Point `alias` back to where it pointed before it was last moved. One step is remembered, so twice is refused.

        Raises:
            NotRegistered: no such model, or the version before is gone.
            RegistryError: no earlier version is remembered, or MLflow is dead or refuses.
        """
        check_alias(alias)
        tag = _PREVIOUS.format(alias=alias)
        with self._changing(check_name(name)):
            current = self._aliases(name).get(alias)
            with asking(self.uri, f"read {name}"):
                previous = int(self._client.get_registered_model(name).tags.get(tag, 0))
            if previous in (0, current):
                raise RegistryError(f"{name}@{alias} ({_spoken(current)}) has no earlier version to go back to")
            self._version(name, previous)
            with asking(self.uri, f"set {name}@{alias}"):
                self._client.set_registered_model_alias(name, alias, str(previous))
                self._client.delete_registered_model_tag(name, tag)
            return self._version(name, previous)

    def download(self, version: ModelVersion, cache_dir: Path) -> Path:
        """The adapter's files in `<cache_dir>/adapters/<sha256>/`, every byte checked; fetched only when not there.

        Raises:
            AdapterError: what MLflow holds is not what was registered. Nothing is left in the cache.
            RegistryError: MLflow is dead or refuses.
        """
        return download(self._client, self.uri, version, cache_dir)

    def keep_card(self, version: ModelVersion, card: str) -> None:
        """Put a new card in the place of a version's: its artifact README.md and, cut to 5000 characters, description.

        Raises:
            RegistryError: MLflow is dead or refuses.
        """
        with asking(self.uri, f"keep the card of {version.id}"):
            self._client.log_text(version.run_id, card, f"{version.source.rpartition('/')[2]}/{CARD}")
            described = without_metadata(card)[:_LONGEST_DESCRIPTION]
            self._client.update_model_version(version.name, str(version.version), described)

    def keep_proof(self, version: ModelVersion, files: Mapping[str, str]) -> None:
        """Keep texts with a version, beside its adapter and no part of it; one of the same name is written anew.

        Args:
            version: a registered version.
            files: plain file name -> text.

        Raises:
            RegistryError: MLflow is dead or refuses.
        """
        folder = proof_folder(version)
        with asking(self.uri, f"keep {', '.join(files)} with {version.id}"):
            for name, text in files.items():
                self._client.log_text(version.run_id, text, f"{folder}/{name}")

    def read_proof(self, version: ModelVersion, name: str) -> str | None:
        """A text that `keep_proof` kept; None where there is none of that name.

        Raises:
            RegistryError: MLflow is dead or refuses, or holds something that is no text.
        """
        return read_text(self._client, self.uri, version, f"{proof_folder(version)}/{name}")

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        lock = env.cache_dir() / "locks" / f"registry-{sha256_text(self.uri)[:12]}-{name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            yield

    def _create(self, name: str, folder: AdapterFolder, run_id: str | None, tags: Mapping[str, str], card: str) -> None:
        run_id, path, uploaded = self._place(name, folder, run_id)
        if not uploaded:
            for file in folder.names:
                self._client.log_artifact(run_id, str(folder.path / file), path)
            self._client.log_text(run_id, card, f"{path}/{CARD}")
        if name not in self._models():
            self._client.create_registered_model(name)
        self._client.create_model_version(
            name,
            source=f"runs:/{run_id}/{path}",
            run_id=run_id,
            tags={**tags, SHA_TAG: folder.sha256, MANIFEST_TAG: folder.manifest_sha256},
            description=without_metadata(card)[:_LONGEST_DESCRIPTION],
            await_creation_for=0,
        )

    def _place(self, name: str, folder: AdapterFolder, run_id: str | None) -> tuple[str, str, bool]:
        """Run and artifact path for the files, and whether another registration has put them there already."""
        if run_id is None:
            experiment = mlflow_tracker.experiment_id(self._client, self.uri, _EXPERIMENT, self._artifact_root)
            run = self._client.create_run(experiment, run_name=f"{name}-{folder.sha256[:12]}")
            self._client.set_terminated(run.info.run_id)
            return run.info.run_id, "adapter", False
        of_run = self._client.search_model_versions(f"run_id = '{run_id}'")
        for version in of_run:
            if version.tags.get(MANIFEST_TAG) == folder.manifest_sha256:
                return run_id, version.source.rpartition("/")[2], True
        # A second adapter of one run must not overwrite the files of the first.
        return run_id, f"adapter-{folder.sha256[:12]}" if of_run else "adapter", False

    def _oldest_with(self, name: str, sha256: str, delete_others: bool = False) -> int | None:
        """The version that holds this adapter; a request repeated by the network may have made a second one."""
        with asking(self.uri, f"search versions of {name}"):
            found = self._client.search_model_versions(f"name = '{name}' and tags.{SHA_TAG} = '{sha256}'")
            numbers = sorted(int(version.version) for version in found)
            for other in numbers[1:] if delete_others else ():
                self._client.delete_model_version(name, str(other))
        return numbers[0] if numbers else None

    def _move_alias(self, name: str, alias: str, version: int) -> None:
        current = self._aliases(name).get(alias)
        if current == version:
            return
        with asking(self.uri, f"set {name}@{alias}"):
            if current is not None:
                self._client.set_registered_model_tag(name, _PREVIOUS.format(alias=alias), str(current))
            self._client.set_registered_model_alias(name, alias, str(version))

    def _models(self) -> dict[str, dict[str, int]]:
        """Name -> alias -> version."""
        return {
            model.name: {alias: int(number) for alias, number in model.aliases.items()} for model in self._registered()
        }

    def _registered(self) -> Sequence[Any]:
        models: list[Any] = []
        token: str | None = ""
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

        with asking(self.uri, f"read {name}", if_absent=absent):
            model = self._client.get_registered_model(name)
        return {alias: int(number) for alias, number in model.aliases.items()}

    def _version(self, name: str, number: int, aliases: dict[str, int] | None = None) -> ModelVersion:
        aliases = self._aliases(name) if aliases is None else aliases
        with asking(
            self.uri, f"read {name}:{number}", if_absent=lambda: self._absent(f"{name}:{number}", name, aliases)
        ):
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


def _spoken(version: int | None) -> str:
    return "nothing" if version is None else f"version {version}"
