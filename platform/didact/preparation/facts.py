"""What went into a run, as figures: made from the prepared data, kept in the run folder as `data.json`, read by all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from didact.datasets.catalog import commercial_of, licence_of
from didact.errors import DataError
from didact.files import write_json
from didact.mixtures import MixtureRow
from didact.preparation.prepare import PreparedData
from didact.runs import commit_in
from didact.spec import FinetuneSpec
from didact.tracking import DatasetInput


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source: what was read, refused, held out, and what training sees of it."""

    name: str
    path: str
    """As in the recipe."""
    licence: str
    weight: float
    """As stated; where the recipe states none, what it turned out to be."""
    rows_read: int
    rows_rejected: int
    rows_train: int
    rows_held_out: int
    rows_dropped: Mapping[str, int]
    """Reason -> accepted rows that are not trained on."""
    samples_usable: int
    samples_truncated: int
    samples_rejected: Mapping[str, int]
    """Reason -> rows, trained on or held out, that gave no sample."""
    tokens: int
    """Of all usable samples."""
    supervised_share: float
    """Part of the tokens that are learned, 0 to 1."""
    samples_seen: int
    """Drawn in the whole run."""
    tokens_seen: float
    share_of_tokens: float
    """Part of the run's tokens, 0 to 1."""
    epochs: float
    """Passes over the source."""
    fingerprint: str
    """`Dataset.fingerprint`."""
    commercial: bool | None = None
    """Whether the recipe or else the card says that the terms allow commercial use; None where neither does."""
    revision: str | None = None
    """Of a Hugging Face dataset: the commit its files were read from, else what the recipe asked for."""

    @property
    def num_rejected(self) -> int:
        """Rows that could not be read, and those that gave no sample."""
        return self.rows_rejected + sum(self.samples_rejected.values())

    def as_input(self) -> DatasetInput:
        """As the MLflow run names its inputs."""
        return DatasetInput(
            name=self.name,
            source=self.path,
            sha256=self.fingerprint,
            weight=self.weight,
            rows_used=self.samples_usable,
            rows_rejected=self.num_rejected,
        )


@dataclass(frozen=True, slots=True)
class StageFacts:
    """One stage of a curriculum."""

    steps: float
    """How long it is; it may end within a step."""
    sources: tuple[MixtureRow, ...]
    """What it draws from each source."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    """All that went into a run."""

    mixture_fingerprint: str
    template_contract: str
    """Digest of the template contract."""
    num_steps: int
    sources: tuple[SourceFacts, ...]
    stages: tuple[StageFacts, ...]
    """Empty without a curriculum."""

    @classmethod
    def of(cls, spec: FinetuneSpec, prepared: PreparedData) -> "DataFacts":
        """Describe data that was prepared in this process."""
        batch, mixture = spec.training.global_batch_size, prepared.mixture.mixture
        stages = (
            StageFacts((stage.stop - stage.start) / batch, tuple(mixture.describe(stage.stop, stage.start)))
            for stage in mixture.stages
        )
        return cls(
            prepared.mixture.fingerprint,
            prepared.contract.fingerprint,
            prepared.num_steps,
            _sources(spec, prepared),
            tuple(stages),
        )

    def write(self, path: Path) -> None:
        """Keep the facts as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "DataFacts":
        """Read what `write` wrote.

        Raises:
            DataError: the file is missing, or does not hold these facts.
        """
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            sources = tuple(SourceFacts(**source) for source in value["sources"])
            stages = tuple(
                StageFacts(stage["steps"], tuple(MixtureRow(**row) for row in stage["sources"]))
                for stage in value["stages"]
            )
            return cls(**{**value, "sources": sources, "stages": stages})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} does not say what went into the run ({error}); train the run again") from error


def _sources(spec: FinetuneSpec, prepared: PreparedData) -> tuple[SourceFacts, ...]:
    num_samples = prepared.num_steps * spec.training.global_batch_size
    seen = prepared.mixture.mixture.describe(num_samples)
    return tuple(
        SourceFacts(
            name=source.name,
            path=source.path,
            licence=licence_of(source),
            weight=source.weight if spec.data.states_weights else _weight(row, spec, num_samples),
            rows_read=dataset.rows_read,
            rows_rejected=dataset.rows_rejected,
            rows_train=len(dataset.train),
            rows_held_out=len(dataset.held_out),
            rows_dropped=dict(dataset.dropped),
            samples_usable=len(table),
            samples_truncated=table.stats.truncated,
            samples_rejected=dict(dataset.refused),
            tokens=table.stats.tokens,
            supervised_share=table.stats.supervised / max(1, table.stats.tokens),
            samples_seen=row.samples,
            tokens_seen=row.tokens,
            share_of_tokens=row.share_of_tokens,
            epochs=row.epochs,
            fingerprint=dataset.fingerprint,
            commercial=commercial_of(source),
            revision=commit_in(dataset.files) or source.revision,
        )
        for source, dataset, table, row in zip(
            spec.data.sources, prepared.datasets, prepared.mixture.tables, seen, strict=True
        )
    )


def _weight(row: MixtureRow, spec: FinetuneSpec, num_samples: int) -> float:
    """The weight that a source turned out to have, where the recipe does not state one."""
    return row.share_of_tokens if spec.data.weight_unit == "tokens" else row.samples / num_samples
