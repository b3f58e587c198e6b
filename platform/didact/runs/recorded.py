"""What a run folder says of where its result comes from, read as it is: also from folders of older versions.

What an older version did not write is None or empty here, and "not recorded" to whoever reads it.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didact.adapter_folder import MANIFEST, adapter_identity, read_manifest
from didact.errors import AdapterError, RunError
from didact.files import read_jsonl
from didact.runs.continued import Descent, descents
from didact.runs.run import Run

_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})/|@([0-9a-f]{40})/")
_STEP = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True)
class RecordedSource:
    """One source of a run's mixture."""

    name: str
    path: str
    """As in the recipe, absolute where it is a file."""
    licence: str | None = None
    commercial: bool | None = None
    """Whether the terms allowed commercial use; None where that was not known or not recorded."""
    revision: str | None = None
    """Of a Hugging Face dataset: the commit where it is known, else what the recipe asked for."""
    weight: float | None = None
    share_of_tokens: float | None = None
    rows_used: int | None = None
    rows_rejected: int | None = None
    fingerprint: str | None = None
    """Of the rows in their order, `Dataset.fingerprint`."""
    files: Mapping[str, str] | None = None
    """Path or URL -> sha256; empty for a source that is not files, None where it was not recorded."""
    tokens: str | None = None
    """Address of its prepared samples below `tokens/` in the cache."""


@dataclass(frozen=True, slots=True)
class RecordedAdapter:
    """The adapter that a run left, as its manifest says."""

    path: Path
    sha256: str
    weights_sha256: str
    base: str | None
    base_fingerprint: str | None
    method: str | None


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """Everything that a run folder holds of its own history."""

    run: Run
    recipe: Mapping[str, Any]
    """The resolved recipe as plain data."""
    sources: tuple[RecordedSource, ...]
    attempts: tuple[Mapping[str, Any], ...]
    """One an attempt: commit, versions, host (`provenance`)."""
    workers: tuple[Mapping[str, Any], ...] = ()
    """One a group of workers: what worker 0 computed on."""
    mixture: str | None = None
    """Fingerprint of samples and order."""
    template_contract: str | None = None
    num_steps: int | None = None
    trial: Mapping[str, Any] | None = None
    """`sweep`, `trial` and the `values` that were drawn, for a trial of a search."""
    descents: tuple[Descent, ...] = ()
    checkpoint: int | None = None
    """Step of the newest checkpoint."""
    adapter: RecordedAdapter | None = None
    earlier: tuple[RecordedAdapter, ...] = field(default=())
    """Adapters that it had at a shorter length."""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def base(self) -> str | None:
        """Bundled name, folder or hub id of the base."""
        model = self.recipe.get("model") or {}
        return model.get("base") or (self.adapter.base if self.adapter else None)


def record_of(run: Run) -> RecordedRun:
    """Read a run folder's history.

    Raises:
        RunError: a file of it is not what a run writes; names it.
    """
    data, prepared, recipe = (_object(file) for file in (run.data, run.prepared, run.recipe))
    if not isinstance(recipe.get("data"), dict):
        raise RunError(f"{run.recipe} is not the recipe of a run: it names no data")
    try:
        return RecordedRun(
            run,
            recipe,
            _sources(recipe, data, prepared),
            attempts=_objects(run.path / "provenance.jsonl"),
            workers=_objects(run.workers),
            mixture=data.get("mixture_fingerprint") or prepared.get("mixture"),
            template_contract=data.get("template_contract"),
            num_steps=data.get("num_steps"),
            trial=_json(run.trial) or _trial_by_place(run),
            descents=tuple(descents(run)),
            checkpoint=_newest_checkpoint(run),
            adapter=recorded_adapter(run.adapter),
            earlier=tuple(
                adapter
                for folder in sorted((run.path / "earlier").glob("*/adapter"))
                if (adapter := recorded_adapter(folder))
            ),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise RunError(f"{run.path} is not a run folder that can be read ({type(error).__name__}: {error})") from error


def _object(file: Path) -> dict[str, Any]:
    """What a file of one JSON object holds; empty where there is no file."""
    found = _json(file)
    if found is not None and not isinstance(found, dict):
        raise RunError(f"{file}: found {json.dumps(found)[:60]}, expected an object")
    return found or {}


def _objects(file: Path) -> tuple[dict[str, Any], ...]:
    """Those of a file with one a line."""
    found = tuple(read_jsonl(file))
    for number, each in enumerate(found, 1):
        if not isinstance(each, dict):
            raise RunError(f"{file}, line {number}: found {json.dumps(each)[:60]}, expected an object")
    return found


def recorded_adapter(folder: Path) -> RecordedAdapter | None:
    """What an adapter's manifest says, its files unread; None where there is no adapter."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        entries, said = read_manifest(file), json.loads(file.read_text(encoding="utf-8"))
    except AdapterError:
        return None
    weights = entries["adapter_model.safetensors"]["sha256"]
    named = (said.get("base"), said.get("base_fingerprint"), said.get("method"))
    return RecordedAdapter(folder, adapter_identity(entries), weights, *named)


def recorded_runs(runs_dir: Path) -> Iterator[RecordedRun]:
    """Every run folder below a folder of runs, and the trials of its sweeps. Damaged ones are passed over."""
    for pattern in ("*/recipe.json", "*/trials/*/recipe.json"):
        for recipe in sorted(runs_dir.glob(pattern)):
            with contextlib.suppress(RunError):
                yield record_of(Run(recipe.parent.absolute()))


def _sources(recipe: Mapping[str, Any], data: Mapping[str, Any], prepared: Mapping[str, Any]) -> tuple[Any, ...]:
    """By the recipe's order; what data.json and prepared.json say of each."""
    facts = {source["name"]: source for source in data.get("sources", ())}
    places = {source["name"]: source for source in prepared.get("sources", ())}
    return tuple(
        _source(asked, facts.get(asked["name"], {}), places.get(asked["name"], {}))
        for asked in (recipe.get("data") or {}).get("sources", ())
    )


def _source(asked: Mapping[str, Any], facts: Mapping[str, Any], place: Mapping[str, Any]) -> RecordedSource:
    files = place.get("files")
    rejected = facts.get("samples_rejected") or {}
    return RecordedSource(
        name=asked["name"],
        path=facts.get("path") or asked["path"],
        licence=facts.get("licence") or asked.get("licence"),
        commercial=facts.get("commercial", asked.get("commercial")),
        revision=facts.get("revision") or commit_in(files or {}) or asked.get("revision"),
        weight=facts.get("weight"),
        share_of_tokens=facts.get("share_of_tokens"),
        rows_used=facts.get("samples_usable"),
        rows_rejected=facts["rows_rejected"] + sum(rejected.values()) if "rows_rejected" in facts else None,
        fingerprint=facts.get("fingerprint") or place.get("data"),
        files=files,
        tokens=(place.get("train") or {}).get("tokens"),
    )


def commit_in(files: Mapping[str, str]) -> str | None:
    """The commit of the Hugging Face dataset that files were read from, as their paths in its cache say."""
    found = (match for path in files if (match := _SNAPSHOT.search(path)))
    return next((match[1] or match[2] for match in found), None)


def _trial_by_place(run: Run) -> Mapping[str, Any] | None:
    """The sweep that a run lies in, for runs that do not say it themselves."""
    sweep = run.path.parent.parent
    if run.path.parent.name != "trials" or not (sweep / "sweep.json").is_file():
        return None
    return {"sweep": sweep.name, "trial": run.name, "values": None}


def _newest_checkpoint(run: Run) -> int | None:
    steps = [match for each in run.checkpoints.glob("step-*") if (match := _STEP.fullmatch(each.name))]
    return max((int(match[1]) for match in steps), default=None)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}") from error
