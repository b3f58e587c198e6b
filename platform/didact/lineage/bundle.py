"""What of a version may leave the house: adapter, card and proof, without secrets and folders of this machine."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didact import env
from didact.adapter_folder import CARD, CONFIG, MANIFEST, AdapterFolder, check_finite, check_folder
from didact.errors import AdapterError, DataError, RunError
from didact.evaluation import EvalReport
from didact.files import sha256_text
from didact.lineage.records import Records
from didact.lineage.trace import is_registered, trace
from didact.registry import ModelVersion
from didact.registry.card import card_facts, model_card, on_hub
from didact.registry.verdict import FILE as VERDICT_FILE
from didact.runs import Run

_RECIPE = "recipe.json"
_PRIVATE_FACTS = ("host", "mlflow_run")
"""Of a run's node: names of this house, which say nothing to others."""
_SECRETS = {
    "a token of the Hugging Face hub": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a key of AWS": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a key of OpenAI": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}"),
    "a token of GitHub": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@\"]+:[^\s/@\"]+@"),
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files to publish."""

    name: str
    """`NAME:VERSION`, or the name of a run that is not registered."""
    adapter_sha256: str
    """Of the adapter as it was registered."""
    files: Mapping[str, Path | str]
    """Path in the repository -> a file as it is, or text."""
    notes: tuple[str, ...] = field(default=())
    """What whoever publishes it must know."""

    def size(self, name: str) -> int:
        """Bytes of one of its files."""
        content = self.files[name]
        return content.stat().st_size if isinstance(content, Path) else len(content.encode("utf-8"))


def make_bundle(asked: str, records: Records | None = None) -> Bundle:
    """Gather what is published of a version or a run, checked.

    Args:
        asked: `NAME`, `NAME@ALIAS`, `NAME:VERSION`, a run folder, or the name of a run.
        records: where to look; default the runs of `DIDACT_RUNS` and their registry.

    Raises:
        NotRegistered, RegistryError, RunError: there is no such version or run.
        AdapterError: the adapter is damaged or not finite; or a file holds a secret or a folder of this machine.
    """
    records = records or Records()
    folder, run, version = _found(asked, records)
    adapter = check_folder(folder, to_publish=True)
    check_finite(folder)
    found = trace(asked, records)
    local = Hidden()
    graph = local.plain(_without_private(found.graph.to_plain()))
    files: dict[str, Path | str] = dict(_adapter_files(adapter, local))
    files[CARD] = local.text(_card(run, version, records))
    files["proof/lineage.json"] = _text(graph)
    if run is not None:
        for file in (run.report, run.verdict):
            if file.is_file():
                files[f"proof/{file.name}"] = _without_folders(file, local)
    elif version is not None and records.registry and (said := records.registry.read_proof(version, VERDICT_FILE)):
        files[f"proof/{VERDICT_FILE}"] = local.text(said)
    _check_private(files)
    return Bundle(
        version.id if version else folder.parent.absolute().name, adapter.sha256, files, tuple(_notes(files, run))
    )


def _without_folders(file: Path, local: "Hidden") -> str:
    """What is published of a report or a verdict; a report's digest is then over what is."""
    text = local.text(file.read_text(encoding="utf-8"))
    try:
        values = json.loads(text)
    except ValueError as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{file}: found {text[:60]!r}, expected an object")
    if "sha256" not in values:
        return text
    return EvalReport.from_json(text, is_sealed=False).to_json()


@dataclass(slots=True)
class Hidden:
    """Folders of this machine that stand in what is published, each with the name that takes its place."""

    names: dict[str, str] = field(default_factory=dict)

    def plain(self, value: Any) -> Any:
        """Plain data without them: of an absolute path its last part stays, wherever else it stands too."""
        self._look(value)
        return self._replaced(value)

    def text(self, text: str) -> str:
        """Text without those that were seen so far."""
        for path in sorted(self.names, key=len, reverse=True):
            text = text.replace(path, self.names[path])
        return text

    def _look(self, value: Any) -> None:
        if isinstance(value, dict):
            for each in (*value, *value.values()):
                self._look(each)
        elif isinstance(value, list | tuple):
            for each in value:
                self._look(each)
        elif isinstance(value, str) and value.startswith(("/", "~/")) and "\n" not in value and len(value) > 1:
            self.names[value] = Path(value).name

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._replaced(key): self._replaced(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._replaced(each) for each in value]
        return self.text(value) if isinstance(value, str) else value


def _found(asked: str, records: Records) -> tuple[Path, Run | None, ModelVersion | None]:
    folder = Path(asked).expanduser()
    if not folder.exists() and not is_registered(asked, records):
        folder = records.runs_dir / asked  # a run by its name, as `didact lineage` takes it
    if (folder / _RECIPE).is_file() and (folder / "adapter" / MANIFEST).is_file():
        return folder / "adapter", Run(folder.absolute()), None
    if records.registry is None:
        raise RunError(f"{asked!r} is no run folder with an adapter, and nothing is registered")
    version = records.registry.resolve(asked)
    recorded = records.run_of(version)
    # The run may have gone on since: its files are of another adapter then.
    same = recorded is not None and recorded.adapter is not None and recorded.adapter.sha256 == version.adapter_sha256
    return records.registry.download(version, env.cache_dir()), recorded.run if recorded and same else None, version


def _adapter_files(adapter: AdapterFolder, local: Hidden) -> Iterator[tuple[str, Path | str]]:
    """Weights as they are; JSON without folders of this machine, and the manifest with the digests of what is sent."""
    manifest = json.loads((adapter.path / MANIFEST).read_text(encoding="utf-8"))
    for name in adapter.names:
        if name == MANIFEST:
            continue
        file = adapter.path / name
        if not name.endswith(".json"):
            yield name, file
            continue
        before = file.read_text(encoding="utf-8")
        value = local.plain(_public(name, json.loads(before)))
        text = before if value == json.loads(before) else _text(value)
        manifest["files"][name] = {"size": len(text.encode("utf-8")), "sha256": sha256_text(text)}
        yield name, text
    manifest["base"] = on_hub(manifest.get("base")) or manifest.get("base")
    published = {**local.plain(manifest), "published_from": {"adapter_sha256": adapter.sha256}}
    yield MANIFEST, _text(published)


def _public(name: str, value: Any) -> Any:
    """The base by its id on the hub, and a recipe without the address of its tracking server."""
    if name == CONFIG and (base := on_hub(value.get("base_model_name_or_path"))):
        return {**value, "base_model_name_or_path": base}
    if name == _RECIPE and "tracking" in value:
        return {**value, "tracking": {**value["tracking"], "uri": None}}
    return value


def _without_private(graph: Mapping[str, Any]) -> dict[str, Any]:
    nodes = [
        {**node, "facts": {key: each for key, each in node["facts"].items() if key not in _PRIVATE_FACTS}}
        for node in graph["nodes"]
    ]
    return {**graph, "nodes": nodes}


def _card(run: Run | None, version: ModelVersion | None, records: Records) -> str:
    if run is not None:
        return model_card(card_facts(run, version.name if version else None, version.id if version else None))
    card = records.registry.read_card(version) if records.registry and version else None
    if card is None:
        raise RunError("the run folder is not on this machine, and the registry holds no card of the version")
    return card


def _notes(files: Mapping[str, Path | str], run: Run | None) -> Iterator[str]:
    card = str(files[CARD])
    if "> **NON-COMMERCIAL.**" in card:
        yield "its data forbids commercial use; the card says so at its top"
    if "> **Unknown licence.**" in card:
        yield "the licence of some of its data is not known; the card says which"
    if "> **Refused by its gate.**" in card:
        yield "its gate refused it; the card says so at its top"
    if "proof/report.json" in files:
        yield "the report holds the questions of its evaluation, with answers"
    if run is None:
        yield "its run folder is not on this machine: no report goes with it"


def _check_private(files: Mapping[str, Path | str]) -> None:
    folders = {str(path) for path in (Path.home(), Path.cwd(), env.runs_dir(), env.cache_dir()) if len(path.parts) > 1}
    for name, content in files.items():
        if isinstance(content, Path):
            continue
        for what, pattern in _SECRETS.items():
            if pattern.search(content):
                raise AdapterError(f"{name} holds what looks like {what}; take it out of what it was made from first")
        for folder in folders:
            if f"{folder}/" in content:
                raise AdapterError(f"{name} names {folder}, a folder of this machine; it is not published")


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
