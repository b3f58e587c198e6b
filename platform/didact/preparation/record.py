"""What a run was prepared from, as written into its folder: workers open it and read no raw row again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from didact.cache.entry import CacheEntry
from didact.datasets.places.digests import digest_file
from didact.env import cache_dir
from didact.errors import DataError
from didact.files import write_json
from didact.logs import get_logger
from didact.models import load_tokenizer
from didact.preparation.facts import DataFacts
from didact.preparation.mixture import mix
from didact.preparation.parts import Runner
from didact.preparation.prepare import PreparedData, TaskTexts, prepare_data, score_here
from didact.preparation.row_scores import Scorer
from didact.runs import Run
from didact.spec import FinetuneSpec
from didact.tokens import TemplateContract, TokenTable, ViewAddress, open_table

_LOG = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PreparedSource:
    """One source of the mixture."""

    name: str
    files: dict[str, str]
    """Path or URL -> sha256 of the files it was read from; empty for sources that are not files."""
    data: str
    """`Dataset.fingerprint`."""
    train: dict[str, str]
    """Where its training samples are: address of the tokens, key and fingerprint of the table."""
    held_out: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class PreparedRecord:
    """The whole mixture."""

    mixture: str
    """`PreparedMixture.fingerprint`."""
    sources: tuple[PreparedSource, ...]

    @classmethod
    def of(cls, prepared: PreparedData) -> "PreparedRecord":
        """Describe data that has been prepared in this process."""
        mixture = prepared.mixture
        sources = (
            PreparedSource(
                dataset.name,
                dict(dataset.files),
                dataset.fingerprint,
                _place(table),
                _place(mixture.held_out[dataset.name]) if dataset.name in mixture.held_out else None,
            )
            for dataset, table in zip(prepared.datasets, mixture.tables, strict=True)
        )
        return cls(mixture.fingerprint, tuple(sources))

    @classmethod
    def read(cls, path: Path) -> "PreparedRecord":
        """Read what `write` wrote."""
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(value["mixture"], tuple(PreparedSource(**source) for source in value["sources"]))

    def write(self, path: Path) -> None:
        """Write the record, unless the run began with other data.

        Raises:
            DataError: `path` says so; names the files that changed.
        """
        if path.is_file():
            PreparedRecord.read(path).check_same(self)
        write_json(path, asdict(self))

    def check_same(self, other: "PreparedRecord") -> None:
        """Refuse data that differs from this.

        Raises:
            DataError: names what differs, with both digests.
        """
        if self.mixture == other.mixture:
            return
        lines = []
        for mine, others in zip(self.sources, other.sources, strict=False):
            lines += _changes(mine, others.files)
            if not lines and (mine.data, mine.train["fingerprint"]) != (others.data, others.train["fingerprint"]):
                lines.append(
                    f"source {mine.name!r}: rows {mine.data[:12]} became {others.data[:12]}, samples "
                    f"{mine.train['fingerprint'][:12]} became {others.train['fingerprint'][:12]}"
                )
        raise DataError(_changed(lines or [f"the mixture {self.mixture[:12]} became {other.mixture[:12]}"]))

    @property
    def is_cached(self) -> bool:
        """Whether this machine sees all of its training samples in the cache."""
        return all(_entry(source.train).manifest() is not None for source in self.sources)

    def check_files(self) -> None:
        """Refuse to train when a file that this machine sees has changed since it was prepared.

        Raises:
            DataError: names the files with both digests.
        """
        lines = []
        for source in self.sources:
            there = {path: digest_file(Path(path)).sha256 for path in source.files if Path(path).is_file()}
            lines += _changes(source, {**source.files, **there})
        if lines:
            raise DataError(_changed(lines))


def open_prepared(path: Path, spec: FinetuneSpec, task_texts: TaskTexts | None = None) -> PreparedData:
    """What a run was prepared from: opened where the cache is visible, else prepared here anew.

    Args:
        path: the record in the run folder.
        spec: the run's recipe.
        task_texts: as for `prepare_data`.

    Raises:
        DataError: the data has changed since; names what.
    """
    record = PreparedRecord.read(path)
    record.check_files()
    if record.is_cached:
        return _opened(record, spec)
    _LOG.warning("the prepared data is not in %s on this machine; preparing it here", cache_dir())
    prepared = prepare_data(spec, task_texts=task_texts)
    record.check_same(PreparedRecord.of(prepared))
    return prepared


def prepare_run(
    run: Run,
    spec: FinetuneSpec,
    runner: Runner,
    task_texts: TaskTexts | None = None,
    score: Scorer = score_here,
) -> tuple[PreparedData, DataFacts]:
    """A run's data and what is known of it: as an earlier attempt left them, else read, prepared and written down.

    A run goes on with the samples that it began with, also where another version would read its rows otherwise.

    Args:
        run: the run.
        spec: its recipe.
        runner: does the work.
        task_texts, score: as for `prepare_data`.

    Returns:
        The data, without its `datasets` where it was only opened.

    Raises:
        DataError: as for `prepare_data`; or the run began with other data, which is named.
    """
    record = PreparedRecord.read(run.prepared) if run.prepared.is_file() else None
    if record is not None and record.is_cached:
        record.check_files()
        try:
            prepared, data = _opened(record, spec), DataFacts.read(run.data)
            if data.num_steps == prepared.num_steps:
                return prepared, data
        except DataError as error:
            _LOG.warning("%s; preparing it again", error)
    prepared = prepare_data(spec, run.quarantine, runner, task_texts, score)
    PreparedRecord.of(prepared).write(run.prepared)
    data = DataFacts.of(spec, prepared)
    data.write(run.data)
    return prepared, data


def _opened(record: PreparedRecord, spec: FinetuneSpec) -> PreparedData:
    tokenizer = load_tokenizer(spec.model)
    contract = TemplateContract.of(tokenizer, spec.tokens)
    tables = [_table(source.name, source.train) for source in record.sources]
    held_out = {
        source.name: _table(source.name, source.held_out) for source in record.sources if source.held_out is not None
    }
    mixture = mix(tables, held_out, spec.data, spec.training)
    record.check_same(PreparedRecord(mixture.fingerprint, record.sources))
    return PreparedData((), mixture, tokenizer, contract, spec.training.num_steps(mixture.mixture.num_rows))


def _place(table: TokenTable) -> dict[str, str]:
    address = table.address
    return {"tokens": address.tokens.address, "key": address.key, "fingerprint": address.fingerprint}


def _entry(address: dict[str, str]) -> CacheEntry:
    return CacheEntry(cache_dir() / "tokens" / address["tokens"])


def _table(name: str, address: dict[str, str]) -> TokenTable:
    return open_table(ViewAddress(_entry(address), address["key"], address["fingerprint"]), name)


def _changes(source: PreparedSource, files: dict[str, str]) -> list[str]:
    return [
        f"source {source.name!r}: {path} had sha256 {digest}, now {files.get(path, 'it is gone')}"
        for path, digest in source.files.items()
        if files.get(path) != digest
    ]


def _changed(lines: list[str]) -> str:
    listed = "\n".join(f"  - {line}" for line in lines)
    return (
        f"the data is not what this run was prepared from:\n{listed}\n"
        "Restore it, or start a run of another name (name=...)"
    )
