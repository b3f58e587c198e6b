"""Registered adapters in MLflow: versions made once, aliases moved knowingly.

MLflow itself registers the same files twice without a word, overwrites aliases and never checks artifact bytes. So
changes to a name happen under a lock of this machine's cache folder, after looking first.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock

from didact import env
from didact.adapter_folder import CARD, AdapterFolder, check_finite, check_folder
from didact.errors import RegistryError
from didact.files import sha256_text
from didact.logs import get_logger
from didact.registry.aliases import ANY, Alias
from didact.registry.asking import asking
from didact.registry.card.metadata import without_metadata
from didact.registry.download import proof_folder
from didact.registry.reading import RegistryReader
from didact.registry.verdict import FILE as VERDICT_FILE
from didact.registry.verdict import Verdict, signing_key, why_refused, why_stale
from didact.registry.versions import (
    CHAMPION,
    MANIFEST_TAG,
    SHA_TAG,
    VERDICT_TAG,
    ModelVersion,
    artifact_path,
    check_alias,
    check_name,
)
from didact.tracking import mlflow_tracker

_LOG = get_logger(__name__)
_EXPERIMENT = "didact-adapters"
_LONGEST_DESCRIPTION = 5000


class Registry(RegistryReader):
    """The registry at an absolute MLflow address (see `tracking.resolve_uri`)."""

    def __init__(self, uri: str, artifact_root: Path | None = None) -> None:
        """Connect; a server is first contacted by the first question.

        Args:
            uri: MLflow server or database.
            artifact_root: where adapters registered without a run keep their files; default beside a sqlite database.
                A server chooses its own.
        """
        super().__init__(uri)
        self._artifact_root = artifact_root

    def register(
        self,
        name: str,
        adapter_dir: Path,
        *,
        run_id: str | None,
        tags: Mapping[str, str],
        card: str,
        alias: str | None,
        verdict: Verdict | None = None,
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
            verdict: of the gate on this adapter, kept with the version in place of an earlier one.

        Raises:
            AdapterError: the folder is damaged, holds files that may not be registered, or values that are not finite.
            RegistryError: a name or alias that cannot be, an alias that no verdict allows, or MLflow refuses.
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
            if verdict is not None:
                self._keep(self._version(name, version), verdict)
            if alias is not None:
                self._point(self._version(name, version), alias, ANY, None)
            return self._version(name, version)

    def promote(
        self,
        name: str,
        version: int,
        alias: str = CHAMPION,
        expected_current: int | None = ANY,
        *,
        force: str | None = None,
    ) -> ModelVersion:
        """Point `alias` to `version`, and remember where it pointed before (see `rollback`).

        Args:
            name: registered model.
            version: an existing version.
            alias: the alias to move.
            expected_current: version that the alias must point to now (None: to nothing), so that a decision made on
                old knowledge does not undo a newer one.
            force: why to move it although the version's verdict does not allow it; kept as a tag.

        Raises:
            NotRegistered: no such model or version.
            RegistryError: the verdict does not allow it, or was made beside another champion than that of now and the
                version never was champion; the alias has moved meanwhile; MLflow is dead or refuses.
        """
        check_alias(alias)
        with self._changing(check_name(name)):
            self._point(self._version(name, version), alias, expected_current, force)
            return self._version(name, version)

    def rollback(self, name: str, alias: str = CHAMPION, *, force: str | None = None) -> ModelVersion:
        """Point `alias` back to where it pointed before it was last moved. One step is remembered, so twice is refused.

        Args:
            name: registered model.
            alias: the alias to move.
            force: as in `promote`.

        Raises:
            NotRegistered: no such model, or the version before is gone.
            RegistryError: no earlier version is remembered, its verdict does not allow it, or MLflow refuses.
        """
        check_alias(alias)
        with self._changing(check_name(name)):
            self._aliases(name)  # says what there is where there is no such model
            pointer = Alias(self._client, self.uri, name, alias)
            before = self._version(name, pointer.previous)
            pointer.move(before, self._refusal(before), force, back=True)
            return self._version(name, before.version)

    def keep_card(self, version: ModelVersion, card: str) -> None:
        """Put a new card in the place of a version's: its artifact README.md and, cut to 5000 characters, description.

        Raises:
            RegistryError: MLflow is dead or refuses.
        """
        with asking(self.uri, f"keep the card of {version.id}"):
            self._client.log_text(version.run_id, card, f"{version.artifact_path}/{CARD}")
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
                return run_id, artifact_path(version.source), True
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

    def _point(self, version: ModelVersion, alias: str, expected: int | None, force: str | None) -> None:
        pointer = Alias(self._client, self.uri, version.name, alias)
        pointer.expect(expected, version.version)
        if pointer.current != version.version:
            pointer.move(version, self._refusal(version) or self._staleness(version, pointer), force)
        elif refusal := self._refusal(version):
            _LOG.warning(
                "%s bears @%s from before, and would not get it now: %s. Another version takes it with "
                "`didact promote`, the one before with `didact rollback`",
                version.id,
                alias,
                refusal,
            )

    def _staleness(self, version: ModelVersion, pointer: Alias) -> str | None:
        """A champion takes the place of the one that it was compared with, or comes back."""
        if pointer.alias != CHAMPION or pointer.has_pointed_to(version.version):
            return None
        current = None if pointer.current is None else self._version(version.name, pointer.current).adapter_sha256
        return why_stale(self.verdict(version), current)

    def _refusal(self, version: ModelVersion) -> str | None:
        try:
            verdict = self.verdict(version)
        except RegistryError as error:
            return str(error)
        return why_refused(version.tags, version.adapter_sha256, verdict, signing_key())

    def _keep(self, version: ModelVersion, verdict: Verdict) -> None:
        if version.tags.get(VERDICT_TAG) == verdict.sha256:
            return
        if verdict.outcome == "none" and version.tags.get("gate") in ("passed", "failed"):
            return  # to ask nothing undoes no verdict
        with contextlib.suppress(RegistryError):  # damaged, so that it says nothing
            if (earlier := self.verdict(version)) is not None:
                self.keep_proof(version, {earlier.earlier_file: earlier.to_json()})
        self.keep_proof(version, {VERDICT_FILE: verdict.to_json()})
        with asking(self.uri, f"keep the verdict of {version.id}"):
            self._client.set_model_version_tag(version.name, str(version.version), "gate", verdict.outcome)
            self._client.set_model_version_tag(version.name, str(version.version), VERDICT_TAG, verdict.sha256)
