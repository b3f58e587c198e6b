"""Everything that this machine can be asked about: run folders, and versions of the registry."""

import contextlib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from didact import env
from didact.errors import RegistryError
from didact.lineage.graph import Graph
from didact.lineage.of_run import add_run
from didact.logs import get_logger
from didact.registry import ModelVersion, Registry, open_registry
from didact.registry.verdict import FILE as VERDICT_FILE
from didact.runs import RecordedRun, record_of, recorded_runs
from didact.runs.run import Run
from didact.spec import TrackingSpec
from didact.tracking import mlflow_run_id, resolve_uri
from didact.tracking.uris import sqlite_file

LINEAGE_FILE = "lineage.json"
_LOG = get_logger(__name__)


class Records:
    """Run folders below one folder, and the registry that they are recorded in. Read when first asked for, once."""

    def __init__(
        self,
        runs_dir: Path | None = None,
        registry: Registry | None = None,
        of_versions: Mapping[str, Run] | None = None,
    ) -> None:
        """
        Args:
            runs_dir: default `DIDACT_RUNS`.
            registry: default that of `open_registry`; a database that is not there is not made.
            of_versions: `NAME:VERSION` -> the run it was made of, where that is known and need not be found.
        """
        self._of_versions = dict(of_versions or {})
        self.runs_dir = (runs_dir or env.runs_dir()).absolute()
        self._registry = registry

    @functools.cached_property
    def runs(self) -> tuple[RecordedRun, ...]:
        """Every run folder, trials of sweeps included; the one that was begun first stands first."""
        runs = list(recorded_runs(self.runs_dir))
        return tuple(sorted(runs, key=lambda run: (_began(run), run.name)))

    @functools.cached_property
    def registry(self) -> Registry | None:
        """The registry; None where nothing was ever registered on this machine and no server is named."""
        if self._registry is not None:
            return self._registry
        database = sqlite_file(resolve_uri(TrackingSpec(), self.runs_dir))
        return open_registry(folder=self.runs_dir) if database is None or database.is_file() else None

    @functools.cached_property
    def versions(self) -> tuple[ModelVersion, ...]:
        """Every registered version. A registry that does not answer is said once, and taken for an empty one."""
        try:
            return tuple(self.registry.list()) if self.registry else ()
        except RegistryError as error:
            _LOG.warning("registered versions are left out: %s", error)
            return ()

    def run_at(self, folder: Path) -> RecordedRun:
        """The run in a folder, wherever it lies.

        Raises:
            RunError: it is no run folder.
        """
        return record_of(Run(folder.absolute()))

    def run_of(self, version: ModelVersion) -> RecordedRun | None:
        """The run folder that a version was registered from: of those with its adapter, the one of its MLflow run, else
        the first."""
        if version.id in self._of_versions:
            return record_of(self._of_versions[version.id])
        with_adapter = [run for run in self.runs if version.adapter_sha256 in adapters_of(run)]
        same = [run for run in with_adapter if version.run_id and mlflow_run_id(run.run.path) == version.run_id]
        return next(iter([*same, *with_adapter]), None)

    def graph(self) -> Graph:
        """All of it."""
        graph = Graph()
        for run in self.runs:
            add_run(graph, run)
        for version in self.versions:
            self.add_version(graph, version)
        return graph

    def add_version(self, graph: Graph, version: ModelVersion) -> str:
        """Add a version with what led to it: from its run folder, else from what was kept with it, else its tags."""
        run = self.run_of(version)
        kept = None
        if run is not None:
            add_run(graph, run)
        elif (kept := self._kept(version)) is not None:
            merge(graph, kept)
        else:
            _add_tags(graph, version)
        key = f"adapter:{version.adapter_sha256}"
        if key not in graph.nodes:
            graph.add(
                "adapter", version.adapter_sha256, sha256=version.adapter_sha256, method=version.tags.get("method")
            )
        facts = {"name": version.name, "version": version.version, "created_ms": version.created_ms}
        node = graph.add("version", version.id, **facts, gate=version.gate or None, traced_from=_from(run, kept))
        for before in self._judged(graph, version, key) or [key]:
            graph.lead(before, node)
        for alias in version.aliases:
            graph.lead(node, graph.add("alias", f"{version.name}@{alias}", name=f"{version.name}@{alias}"))
        return node

    def _kept(self, version: ModelVersion) -> Graph | None:
        text = self._proof(version, LINEAGE_FILE)
        if text is None:
            return None
        try:
            return Graph.from_plain(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            _LOG.warning("%s of %s cannot be used (%s); its tags are", LINEAGE_FILE, version.id, error)
            return None

    def _judged(self, graph: Graph, version: ModelVersion, adapter: str) -> list[str]:
        """The last that was said of its adapter: the verdict, else the evaluation.

        A verdict may be kept with the version alone. Where runs with different gates made the same adapter, it is the
        version's own.
        """
        evaluations = [then for then in graph.after(adapter) if then.startswith("evaluation:")]
        verdicts = [
            then for each in (adapter, *evaluations) for then in graph.after(each) if then.startswith("verdict:")
        ]
        said = None
        with contextlib.suppress(ValueError):
            if len(verdicts) != 1 and (text := self._proof(version, VERDICT_FILE)) is not None:
                said = json.loads(text)
        if verdicts:
            return [each for each in verdicts if graph.nodes[each].facts.get("said") == said] or verdicts
        if said is None:
            return evaluations
        verdict = graph.add("verdict", version.id, said=said)
        graph.lead(evaluations[0] if evaluations else adapter, verdict)
        return [verdict]

    def _proof(self, version: ModelVersion, name: str) -> str | None:
        try:
            return self.registry.read_proof(version, name) if self.registry and version.run_id else None
        except RegistryError as error:
            _LOG.warning("%s", error)
            return None


def adapters_of(run: RecordedRun) -> set[str]:
    """Identities of the adapters that a run made."""
    return {adapter.sha256 for adapter in (run.adapter, *run.earlier) if adapter is not None}


def merge(graph: Graph, other: Graph) -> None:
    """Add another graph; what is known already stays."""
    for node in other.nodes.values():
        graph.add(node.kind, node.id.partition(":")[2], **node.facts)
    for first, then in other.arrows:
        graph.lead(first, then)


def _add_tags(graph: Graph, version: ModelVersion) -> None:
    """What the tags of a version alone say: its run folder is elsewhere, and it is older than the record beside it."""
    tags = version.tags
    adapter = graph.add("adapter", version.adapter_sha256, sha256=version.adapter_sha256, method=tags.get("method"))
    facts = {"name": tags.get("recipe"), "commit": tags.get("git_commit"), "mlflow_run": version.run_id}
    run = graph.add("run", f"{tags.get('recipe')}:{version.run_id or version.adapter_sha256[:8]}", **facts)
    graph.lead(run, adapter)
    base = tags.get("base_sha256")
    graph.lead(graph.add("base", base or str(tags.get("base")), name=tags.get("base"), fingerprint=base), run)
    mixture = graph.add("mixture", f"of {version.id}", fingerprint=None)
    graph.lead(mixture, run)
    for name, said in _mapping(tags.get("mixture")).items():
        wanted = {key: said.get(key) for key in ("path", "licence", "commercial", "weight", "rows_used", "fingerprint")}
        wanted.update(name=name, rows_rejected=said.get("rows_rejected"), files_recorded=False)
        graph.lead(graph.add("source", f"of {version.id}/{name}", **wanted), mixture)
    figures = {
        metric: [_number(value), _number(tags.get(f"adapter.{metric}"))]
        for key, value in tags.items()
        if key.startswith("base.") and (metric := key.removeprefix("base."))
    }
    if figures:
        graph.lead(adapter, graph.add("evaluation", version.id, figures=figures))


def _from(run: RecordedRun | None, kept: Graph | None) -> str:
    return "run folder" if run else "record kept with the version" if kept else "tags"


def _mapping(text: str | None) -> dict[str, dict[str, Any]]:
    """The tag `mixture`; a long one may have been cut by MLflow."""
    with contextlib.suppress(ValueError):
        value = json.loads(text or "{}")
        return {name: said for name, said in value.items() if isinstance(said, dict)}
    return {}


def _number(text: str | None) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]
    return None


def _began(run: RecordedRun) -> str:
    return str(run.attempts[0].get("time")) if run.attempts else ""
