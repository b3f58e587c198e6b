"""The question: where does this come from, or what was made of it."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.tree import Tree
from typing_extensions import override

from didact.adapter_folder import check_folder
from didact.datasets.places.digests import digest_file
from didact.display import Shown
from didact.errors import RunError
from didact.lineage.graph import Graph, Node
from didact.lineage.of_run import add_run
from didact.lineage.records import Records, adapters_of
from didact.lineage.tree import as_tree, learned
from didact.registry import ModelVersion

CARD, LICENCE, SHA256 = "card:", "licence:", "sha256:"
_OTHER_SOURCES = ("hf:", "reasoning-gym:", "memory:")
_SHORTEST_DIGEST = 8
_FILES = ("file", "questions")
"""Kinds of nodes that are files: of data, and of an evaluation's questions."""


@dataclass(frozen=True, slots=True)
class Affected:
    """What was trained on some data, itself or by way of an adapter that it began with."""

    runs: tuple[str, ...]
    """Run folders; for a run that is not on this machine its name."""
    versions: tuple[str, ...]
    """`NAME:VERSION`: what to withdraw when the data may not be used any more."""
    aliases: tuple[str, ...]
    """`NAME@ALIAS`: those of them that are in service."""


@dataclass(frozen=True, slots=True)
class Trace(Shown):
    """An answer."""

    asked: str
    direction: Literal["back", "forward"]
    """`back` to what a version or run was made of; `forward` from data to what was made of it."""
    roots: tuple[str, ...]
    """Nodes that were meant."""
    graph: Graph
    notes: tuple[str, ...] = ()
    """What a reader must know besides."""

    @override
    def __rich__(self) -> Tree:
        return as_tree(self.asked, self.direction, self.roots, self.graph, self.notes)

    @property
    def affected(self) -> Affected:
        """The runs, versions and aliases in a trace that goes forward, without those that questions only measured; all
        of them in one that goes back."""
        made = self.graph if self.direction == "back" else learned(self.roots, self.graph)
        runs = (node.facts.get("path") or node.facts.get("name") or node.id for node in made.of_kind("run"))
        versions = (f"{node.facts['name']}:{node.facts['version']}" for node in made.of_kind("version"))
        return Affected(tuple(runs), tuple(versions), tuple(node.facts["name"] for node in made.of_kind("alias")))

    def to_plain(self) -> dict[str, Any]:
        """As plain data: what was asked, the graph, and where it goes forward what is affected."""
        value: dict[str, Any] = {
            "asked": self.asked,
            "direction": self.direction,
            "roots": list(self.roots),
            "notes": list(self.notes),
        }
        if self.direction == "forward":
            found = self.affected
            value["affected"] = {each: list(getattr(found, each)) for each in ("runs", "versions", "aliases")}
        return {**value, **self.graph.to_plain()}


def trace(asked: str, records: Records | None = None) -> Trace:
    """Follow something to where it comes from, or data to what was trained on it and questions to what they measured.

    Args:
        asked: goes back: `NAME`, `NAME@ALIAS`, `NAME:VERSION`, a run folder or an adapter folder. Goes forward: a file
            (also one that is gone, by its path), `card:NAME`, `licence:TEXT` for every source whose licence holds the
            text, `sha256:DIGEST` of a file or of a source's rows, or a source as recipes write it (`hf:OWNER/NAME`).
        records: where to look; default the runs of `DIDACT_RUNS` and their registry.

    Raises:
        NotRegistered, RegistryError: no such version, or no registry to ask.
        RunError: nothing is known of it; says what it could have been.
    """
    records = records or Records()
    folder = Path(asked).expanduser()
    if (folder / "recipe.json").is_file() and (folder / "adapter.json").is_file():
        return _of_adapter(asked, folder, records)
    if (folder / "recipe.json").is_file():
        return _of_run(asked, folder, records)
    if (folder / "adapter.json").is_file():
        return _of_adapter(asked, folder, records)
    if folder.is_file() or asked.startswith((CARD, LICENCE, SHA256, *_OTHER_SOURCES)) or "/" in asked:
        return _forward(asked, records)
    run = records.runs_dir / asked
    if (run / "recipe.json").is_file() and not is_registered(asked, records):
        return _of_run(asked, run, records)
    if records.registry is None:
        raise RunError(f"nothing is known of {asked!r}: {_possible(records)}; nothing is registered yet")
    return trace_version(asked, records.registry.resolve(asked), records)


def is_registered(name: str, records: Records) -> bool:
    """Whether a registered model has this name."""
    return any(version.name == name for version in records.versions)


def trace_version(asked: str, version: ModelVersion, records: Records) -> Trace:
    """A version that is known already, as `trace` follows it back."""
    graph = Graph()
    root = records.add_version(graph, version)
    _add_ancestors(graph, records)
    aliases = [name for name in graph.after(root) if name.startswith("alias:")]
    back = graph.upstream([root])
    for alias in aliases:  # they come after it, and whoever asks for it wants to know them
        back.nodes[alias] = graph.nodes[alias]
        back.lead(root, alias)
    source = graph.nodes[root].facts["traced_from"]
    said = () if source == "run folder" else (f"its run folder is not on this machine: traced from the {source}",)
    return Trace(asked, "back", (root,), back, said)


def _of_run(asked: str, folder: Path, records: Records) -> Trace:
    graph = Graph()
    recorded = records.run_at(folder)
    run = add_run(graph, recorded)
    for version in records.versions:
        if recorded.adapter and version.adapter_sha256 == recorded.adapter.sha256:
            records.add_version(graph, version)
    _add_ancestors(graph, records)
    made = graph.downstream([run])
    last = [name for name in made.nodes if not made.after(name)] or [run]
    return Trace(asked, "back", tuple(last), graph.upstream(last))


def _of_adapter(asked: str, folder: Path, records: Records) -> Trace:
    sha256 = check_folder(folder).sha256
    if (folder.parent / "recipe.json").is_file() and folder.name == "adapter":
        return _of_run(asked, folder.parent, records)
    graph = records.graph()
    if f"adapter:{sha256}" not in graph.nodes:
        raise RunError(f"nothing is known of adapter {folder} ({sha256[:12]}): no run in {records.runs_dir} made it")
    return Trace(asked, "back", (f"adapter:{sha256}",), graph.upstream([f"adapter:{sha256}"]))


def _add_ancestors(graph: Graph, records: Records) -> None:
    """The runs that made the adapters which others began with, or were merged into their base."""
    known: set[str] = set()
    while unknown := [node for node in graph.of_kind("adapter") if not graph.before(node.id) and node.id not in known]:
        for node in unknown:
            known.add(node.id)
            run = next((run for run in records.runs if node.facts["sha256"] in adapters_of(run)), None)
            version = next((each for each in records.versions if each.adapter_sha256 == node.facts["sha256"]), None)
            if run is not None:
                add_run(graph, run)
            elif version is not None:
                records.add_version(graph, version)


def _forward(asked: str, records: Records) -> Trace:
    graph = records.graph()
    notes: list[str] = []
    fits = _matcher(asked, notes)
    roots = [node.id for node in graph.nodes.values() if fits(node)]
    if not roots:
        raise RunError(
            f"nothing was trained on or measured by {asked!r}, as far as is recorded in {records.runs_dir}: "
            f"{_near(asked, graph)}"
        )
    unrecorded = [node for node in graph.of_kind("source") if not node.facts.get("files_recorded")]
    if unrecorded and not asked.startswith((CARD, LICENCE)):
        names = ", ".join(sorted({str(node.facts["name"]) for node in unrecorded}))
        notes.append(f"files of {len(unrecorded)} sources are not recorded, so these are not looked through: {names}")
    return Trace(asked, "forward", tuple(roots), graph.downstream(roots), tuple(notes))


def _matcher(asked: str, notes: list[str]) -> Callable[[Node], bool]:
    """Whether a node of a file or of a source is what was asked for."""
    if asked.startswith(LICENCE):
        wanted = asked.removeprefix(LICENCE).strip().lower()
        if not wanted:
            raise RunError("licence: names no licence; expected part of one, such as licence:cc-by-nc")
        return lambda node: node.kind == "source" and wanted in str(node.facts.get("licence") or "unknown").lower()
    if asked.startswith(SHA256):
        digest = asked.removeprefix(SHA256).lower()
        if len(digest) < _SHORTEST_DIGEST or re.search("[^0-9a-f]", digest):
            raise RunError(f"found {asked!r}; expected sha256: and at least {_SHORTEST_DIGEST} hex digits")
        return lambda node: (
            str(node.facts.get("fingerprint" if node.kind == "source" else "sha256")).startswith(digest)
            and (node.kind in (*_FILES, "source"))
        )
    if asked.startswith((CARD, *_OTHER_SOURCES)):
        return lambda node: node.kind == "source" and _same_source(str(node.facts.get("path")), asked)
    return _file_matcher(asked, notes)


def _same_source(path: str, asked: str) -> bool:
    """`hf:OWNER/NAME` means every configuration of it."""
    return path == asked or path.startswith(f"{asked}:")


def _file_matcher(asked: str, notes: list[str]) -> Callable[[Node], bool]:
    path = asked if "://" in asked else str(Path(asked).expanduser().absolute())
    real = Path(path)
    now = digest_file(real).sha256 if real.is_file() else None
    changed: set[str] = set()

    def fits(node: Node) -> bool:
        if node.kind == "source":
            return node.facts.get("path") == path and not node.facts.get("files_recorded")
        if node.kind not in _FILES:
            return False
        same_place = node.facts["path"] == path or Path(node.facts["path"]).is_relative_to(path)
        if now is not None and same_place and node.facts["sha256"] != now and node.id not in changed:
            changed.add(node.id)
            notes.append(
                f"{asked} holds other bytes now ({now[:12]}) than when it was read ({node.facts['sha256'][:12]})"
            )
        if now is None and not real.exists() and same_place and "://" not in path and node.id not in changed:
            changed.add(node.id)
            notes.append(f"{node.facts['path']} is gone")
        return same_place or node.facts["sha256"] == now

    return fits


def _near(asked: str, graph: Graph) -> str:
    known = {str(node.facts.get("path")) for node in graph.nodes.values() if node.kind in (*_FILES, "source")}
    close = difflib.get_close_matches(asked, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"{len(known)} files and sources are recorded"


def _possible(records: Records) -> str:
    names = [run.name for run in records.runs]
    runs = (
        f"runs in {records.runs_dir} are {', '.join(names[:8])}" if names else f"there is no run in {records.runs_dir}"
    )
    return f"it is no file, no run and no registered name; {runs}"
