"""May a run be done again, and would it come out the same: what was recorded beside what is here now."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact import env
from didact.adapter_folder import check_folder
from didact.datasets.places.digests import digest_file
from didact.display import Shown, visible
from didact.errors import DidactError, RunError
from didact.files import new_folder, write_json
from didact.lineage.records import Records
from didact.registry import ModelVersion
from didact.runs import RecordedRun, Run, git_state, package_versions, processor, provenance
from didact.spec import FinetuneSpec, load_spec

RECORD = "reproduction.json"
_SUFFIX = "-again"
_SHOWN = 12
_DECISIVE = ("torch", "transformers", "peft", "tokenizers", "numpy", "bitsandbytes", "deepspeed", "flash_attn")
"""Packages that compute: another version of them may round otherwise."""
Weight = Literal["blocks", "differs", "unknown"]
_STYLES: Mapping[Weight, str] = {"blocks": "bold red", "differs": "yellow", "unknown": "dim"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was recorded."""

    weight: Weight
    """`blocks`: the run cannot be done again; `differs`: it may come out otherwise; `unknown`: nobody can say."""
    what: str
    recorded: str
    found: str

    def __str__(self) -> str:
        return f"{self.what}: recorded {self.recorded}, found {self.found}"


@dataclass(frozen=True, slots=True)
class Reproduction(Shown):
    """A run to do again."""

    asked: str
    spec: FinetuneSpec
    """The recipe, under a name of its own, without registration and, where no row depends on it, evaluation."""
    original: RecordedRun | None
    """None where only the version is known: its steps cannot be compared then."""
    adapter_sha256: str | None
    """Of the adapter that it made; None where it left none."""
    differences: tuple[Difference, ...]

    @property
    def blocked(self) -> tuple[Difference, ...]:
        """What keeps it from being done again."""
        return tuple(each for each in self.differences if each.weight == "blocks")

    def check(self) -> None:
        """Nothing, where it can be done again.

        Raises:
            RunError: names everything that is missing or not what it was.
        """
        if self.blocked:
            listed = "\n".join(f"  - {each}" for each in self.blocked)
            raise RunError(f"{self.asked} cannot be done again:\n{listed}\nBring back what it was made of")

    @override
    def __rich__(self) -> Group:
        heading = Text(f"{visible(self.asked)} again, as run {self.spec.name}", style="bold")
        if not self.differences:
            return Group(heading, Text("everything that was recorded is here, and the same"))
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for column in ("", "What", "Recorded", "Now"):
            table.add_column(column, overflow="fold")
        for each in sorted(self.differences, key=lambda found: list(_STYLES).index(found.weight)):
            cells = (each.weight, each.what, each.recorded, each.found)
            table.add_row(*(Text(visible(cell)) for cell in cells), style=_STYLES[each.weight])
        return Group(heading, table)


def plan_reproduction(asked: str, records: Records | None = None, name: str | None = None) -> Reproduction:
    """Compare what was recorded of a run with what is here. Reads files and starts nothing.

    Args:
        asked: a run folder, the name of a run, or `NAME`, `NAME@ALIAS`, `NAME:VERSION`.
        records: where to look; default the runs of `DIDACT_RUNS` and their registry.
        name: of the new run; default the old one's with `-again`.

    Raises:
        NotRegistered, RegistryError, RunError: there is no such run or version, or its recipe is not recorded.
        SpecError: its recipe cannot be read by this version of didact.
    """
    records = records or Records()
    original, version = _found(asked, records)
    recipe = original.run.recipe if original else _recipe_of(asked, version, records)
    spec = load_spec(FinetuneSpec, recipe)
    # What is measured of equal weights is equal. Tasks whose questions decide which rows are trained on stay.
    evaluation = None if spec.data.contamination.policy == "allow" else spec.evaluation
    again = {"name": name or _free_name(spec.name, records), "evaluation": evaluation, "register_as": None}
    spec = spec.model_copy(update=again)
    adapter = version.adapter_sha256 if version else original.adapter.sha256 if original and original.adapter else None
    differences = (
        *_data(original),
        *_base(original, version, spec),
        *_start(original, spec),
        *_code(original),
        *_machine(original),
        *_history(original, adapter),
    )
    return Reproduction(asked, spec, original, adapter, differences)


def begin_again(plan: Reproduction, runs_dir: Path | None = None) -> Run:
    """Make the folder of the new run, with the samples and the first adapter of the old one; done before, it is opened.

    Raises:
        RunError: the plan is blocked, or a run of this name is something else.
    """
    plan.check()
    run = Run((runs_dir or env.runs_dir()).absolute() / plan.spec.name)
    if run.path.exists():
        if not (run.path / RECORD).is_file():
            raise RunError(f"{run.path} is another run; give the new one another name")
        return run
    with new_folder(run.path) as scratch:
        if plan.original is not None:
            for file in (plan.original.run.prepared, plan.original.run.data):
                if file.is_file():
                    shutil.copy(file, scratch / file.name)
            if plan.original.run.start.is_dir():
                shutil.copytree(plan.original.run.start, scratch / run.start.name)
        write_json(
            scratch / RECORD,
            {
                "of": str(plan.original.run.path) if plan.original else plan.asked,
                "adapter_sha256": plan.adapter_sha256,
                "differences": [asdict(each) for each in plan.differences],
            },
        )
    return run


def _found(asked: str, records: Records) -> tuple[RecordedRun | None, ModelVersion | None]:
    for folder in (Path(asked).expanduser(), records.runs_dir / asked):
        if (folder / "recipe.json").is_file() and ("/" in asked or folder.parent == records.runs_dir):
            registered = "/" not in asked and any(each.name == asked for each in records.versions)
            if not registered:
                return records.run_at(folder), None
    if records.registry is None:
        raise RunError(f"there is no run {asked!r} in {records.runs_dir}, and nothing is registered")
    version = records.registry.resolve(asked)
    return records.run_of(version), version


def _recipe_of(asked: str, version: ModelVersion | None, records: Records) -> Path:
    if version is not None and records.registry is not None:
        recipe = records.registry.download(version, env.cache_dir()) / "recipe.json"
        if recipe.is_file():
            return recipe
    raise RunError(f"the recipe of {asked} is not recorded: its run folder is not here, and its adapter holds none")


def _free_name(name: str, records: Records) -> str:
    stem, number = f"{name[: 128 - len(_SUFFIX) - 3]}{_SUFFIX}", 1
    free = stem
    while (folder := records.runs_dir / free).exists() and (folder / "adapter" / "adapter.json").is_file():
        number += 1
        free = f"{stem}-{number}"
    return free


def _data(original: RecordedRun | None) -> Iterator[Difference]:
    if original is None:
        yield Difference("unknown", "samples", "not on this machine", "prepared anew from the recipe's sources")
        return
    from didact.preparation import PreparedRecord

    cached = False
    if original.run.prepared.is_file():
        cached = PreparedRecord.read(original.run.prepared).is_cached
    else:
        yield Difference("unknown", "samples", "not recorded", "prepared anew from the recipe's sources")
    for source in original.sources:
        if source.files is None:
            yield Difference("unknown", f"files of source {source.name}", "not recorded", "whatever is there now")
        for path, sha256 in (source.files or {}).items():
            yield from _file(source.name, path, sha256, cached=cached)


def _file(source: str, path: str, sha256: str, *, cached: bool) -> Iterator[Difference]:
    what, before = f"file {path} of source {source}", f"sha256 {sha256[:_SHOWN]}"
    if "://" in path:
        return
    if not Path(path).is_file():
        found = (
            "it is gone; its samples are in the cache" if cached else "it is gone, and its samples are not in the cache"
        )
        yield Difference("differs" if cached else "blocks", what, before, found)
    elif (now := digest_file(Path(path)).sha256) != sha256:
        yield Difference("blocks", what, before, f"sha256 {now[:_SHOWN]}")


def _base(original: RecordedRun | None, version: ModelVersion | None, spec: FinetuneSpec) -> Iterator[Difference]:
    recorded = original.adapter.base_fingerprint if original and original.adapter else None
    recorded = recorded or (version.tags.get("base_sha256") if version else None)
    from didact.models import base_fingerprint

    try:
        found = base_fingerprint(spec.model)
    except (DidactError, OSError) as error:
        said = recorded[:_SHOWN] if recorded else "not recorded"
        yield Difference("blocks", f"base {spec.model.base}", said, " ".join(str(error).split()))
        return
    if recorded is None:
        yield Difference("unknown", f"base {spec.model.base}", "fingerprint not recorded", found[:_SHOWN])
    elif found != recorded:
        yield Difference("blocks", f"base {spec.model.base}", recorded[:_SHOWN], found[:_SHOWN])


def _start(original: RecordedRun | None, spec: FinetuneSpec) -> Iterator[Difference]:
    if spec.adapter.start is None:
        return
    what = f"adapter {spec.adapter.start} that it began with"
    if original is None or not original.run.start.is_dir():
        yield Difference("unknown", what, "not kept", "what the name means now")
        return
    recorded = next((each.adapter_sha256 for each in original.descents if each.before == spec.adapter.start), None)
    try:
        found = check_folder(original.run.start).sha256
    except DidactError as error:
        yield Difference("blocks", what, (recorded or "not recorded")[:_SHOWN], str(error))
        return
    if recorded and found != recorded:
        yield Difference("blocks", what, recorded[:_SHOWN], found[:_SHOWN])


def _code(original: RecordedRun | None) -> Iterator[Difference]:
    attempt = original.attempts[-1] if original and original.attempts else None
    if attempt is None:
        yield Difference("unknown", "code and versions", "not recorded", "those of now")
        return
    git, now = attempt.get("git") or {}, git_state(Path(__file__).parent) or {}
    if git.get("commit") != now.get("commit"):
        yield Difference("differs", "commit of didact", _commit(git), _commit(now))
    elif git.get("changed") or now.get("changed"):
        yield Difference("differs", "uncommitted changes of didact", _changed(git), _changed(now))
    before, versions = attempt.get("packages") or {}, package_versions()
    for name in sorted({*before, *versions} & set(_DECISIVE)):
        if name in before and before[name] != versions[name]:
            yield Difference("differs", name, before[name] or "none", versions[name] or "none")
    if attempt.get("python") and attempt["python"] != provenance()["python"]:
        yield Difference("differs", "Python", attempt["python"], provenance()["python"])


def _machine(original: RecordedRun | None) -> Iterator[Difference]:
    worker = original.workers[-1] if original and original.workers else None
    attempt = original.attempts[-1] if original and original.attempts else {}
    if worker is None:
        recorded = attempt.get("processor")
        if recorded is None:
            yield Difference("unknown", "what computed", "not recorded", processor())
        elif recorded != processor():
            yield Difference("differs", "processor", recorded, processor())
        return
    from didact.devices import cpu_capability, this_machine

    for what, now in (("processor", processor()), ("capability", cpu_capability())):
        if worker.get(what) and worker[what] != now:
            yield Difference(
                "differs", {"capability": "instructions of the processor"}.get(what, what), worker[what], now
            )
    device, gpus = worker.get("device"), [gpu.name for gpu in this_machine().gpus]
    if device and device != "cpu" and device not in gpus:
        yield Difference("differs", "GPU", device, ", ".join(gpus) or "none on this machine")
    if device == "cpu" and gpus:
        yield Difference("differs", "device", "cpu", f"{gpus[0]}, which placement.device may choose")


def _history(original: RecordedRun | None, adapter: str | None) -> Iterator[Difference]:
    if original is None:
        return
    if adapter is None and original.adapter is None and not (original.run.adapter / "config.json").is_file():
        yield Difference("unknown", "result", "the run left none", "nothing to compare with")
    for descent in original.descents:
        if not descent.exact:
            yield Difference("differs", "history", f"went on from {descent.before}: {descent.why}", "trained in one go")
    asked = (original.recipe.get("training") or {}).get("micro_batch_size")
    used = {each["micro_batch_size"] for each in original.workers if each.get("micro_batch_size") is not None}
    if used - {asked}:
        yield Difference("differs", "micro-batches", ", ".join(map(str, sorted(used))), f"{asked}, as the recipe asks")
    if any(each.get("fused") for each in original.workers):
        yield Difference("differs", "passes", "shared with other runs on one base", "alone, which rounds otherwise")
    groups = {each["workers"] for each in original.workers if each.get("workers") is not None}
    if len(groups) > 1:
        yield Difference(
            "differs", "workers", f"{', '.join(map(str, sorted(groups)))} in turn", "as many as there is room for"
        )


def _commit(git: Mapping[str, Any]) -> str:
    return (
        f"{str(git['commit'])[:_SHOWN]}{', changed' if git.get('changed') else ''}"
        if git.get("commit")
        else "not recorded"
    )


def _changed(git: Mapping[str, Any]) -> str:
    return "changes" if git.get("changed") else "none"
