"""A recipe's datasets -> token tables and the mixture over them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from didact.cache.entry import CacheEntry
from didact.datasets.dataset import Dataset
from didact.errors import DataError
from didact.logs import get_logger
from didact.mixtures import Mixture, build_mixture
from didact.preparation.parts import Encoder, Runner, run_here, tokenize
from didact.preparation.refused import note_refused
from didact.spec import DataSpec, TokensSpec, TrainingSpec
from didact.tokens.table import TokenTable, view_table
from didact.tokens.template import TemplateContract

_log = get_logger(__name__)


@dataclass(frozen=True)
class PreparedMixture:
    """What training draws from and what is held out, as tokens."""

    tables: tuple[TokenTable, ...]
    """Training samples of each source, in the mixture's order."""
    held_out: dict[str, TokenTable]
    """Source -> held-out samples, for the sources that hold rows out; a table may be empty."""
    mixture: Mixture
    """The order of training samples."""
    fingerprint: str
    """Digest of tables and order: same fingerprint, same tokens in the same order."""
    datasets: tuple[Dataset, ...] = ()
    """Its sources with what was refused of them; none where only their tokens were opened."""


def prepare_mixture(
    datasets: Sequence[Dataset],
    data: DataSpec,
    tokens: TokensSpec,
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    cache_dir: Path,
    training: TrainingSpec,
    run: Runner = run_here,
    quarantine: Path | None = None,
) -> PreparedMixture:
    """Tokenize every dataset (or find it in the cache) and weigh them into one mixture.

    Args:
        datasets: one for each of `data.sources`, in that order.
        data: weights, how they change, and the seed.
        tokens: length, truncation and mask policy.
        tokenizer: the base model's tokenizer.
        contract: its template contract.
        cache_dir: root of the token cache.
        training: length of the run.
        run: tokenizes what the cache does not hold.
        quarantine: folder for rows that give no sample; None writes none.

    Raises:
        DataError: the datasets are not those of `data.sources`, a source has no usable sample or too many bad rows, or
            `max_epochs` allows fewer samples than the run asks for.
    """
    names = [dataset.name for dataset in datasets]
    if names != [source.name for source in data.sources]:
        raise DataError(f"datasets are {names}; data.sources are {[source.name for source in data.sources]}")

    tables, held_out, noted = [], {}, []
    encoder = Encoder(tokenizer, contract, tokens)
    for dataset in datasets:
        entry = tokenize(dataset, encoder, cache_dir, run)
        tables.append(_table(dataset, "train", entry))
        made = [tables[-1]]
        if len(dataset.held_out):
            held_out[dataset.name] = _table(dataset, "held_out", entry)
            made.append(held_out[dataset.name])
        _log.info("%s", _summary(dataset, tables[-1], held_out.get(dataset.name)))
        noted.append(note_refused(dataset, entry, made, data.max_bad_rows_share, quarantine))
    return replace(mix(tables, held_out, data, training), datasets=tuple(noted))


def mix(
    tables: Sequence[TokenTable], held_out: Mapping[str, TokenTable], data: DataSpec, training: TrainingSpec
) -> PreparedMixture:
    """Weigh tables into one mixture.

    Args:
        tables: training samples, one for each of `data.sources`, in that order.
        held_out: source -> held-out samples.
        data: weights, their unit and the seed.
        training: length of the run.

    Raises:
        DataError: `max_epochs` allows fewer samples than the run asks for.
    """
    rows = [len(table) for table in tables]
    batch = training.global_batch_size
    num_samples = training.num_steps(sum(rows)) * batch
    mixture = build_mixture(data, rows, [table.stats.mean_tokens for table in tables], num_samples, batch)
    fingerprint = mixture.fingerprint([table.fingerprint for table in tables])
    return PreparedMixture(tuple(tables), dict(held_out), mixture, fingerprint)


def _table(dataset: Dataset, part: Literal["train", "held_out"], entry: CacheEntry) -> TokenTable:
    view = getattr(dataset, part)
    table = view_table(entry, view, dataset.name)
    stats = table.stats
    _log.debug(
        "%s (%s): %d conversations, %d samples, %d tokens, %d learned, %d cut at the end, rejected %s",
        *(dataset.name, part, len(view), stats.samples, stats.tokens, stats.supervised, stats.truncated),
        stats.rejected or "none",
    )
    return table


def _summary(dataset: Dataset, train: TokenTable, held_out: TokenTable | None) -> str:
    """What became of a source, in one line."""
    stats, both = train.stats, [each.stats for each in (train, held_out) if each is not None]
    refused = sum((Counter(each.rejected) for each in both), Counter({"when read": dataset.rows_rejected}))
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in refused.items() if count)
    left_out = ", ".join(f"{reason} {count:,}" for reason, count in dataset.dropped.items() if count)
    return (
        f"source {dataset.name}: {dataset.rows_read:,} rows read, "
        f"{refused.total():,} rejected{f' ({reasons})' if reasons else ''}"
        + (f", {sum(dataset.dropped.values()):,} left out ({left_out})" if left_out else "")
        + f"; {stats.samples:,} samples to train on with {stats.tokens:,} tokens, {stats.supervised:,} learned"
        + (f", {stats.truncated:,} cut at the end" if stats.truncated else "")
        + (f"; {held_out.stats.samples:,} held out" if held_out is not None else "")
    )
