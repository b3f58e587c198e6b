"""A recipe's datasets -> token tables and the mixture over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from didact.datasets.types import Conversation, Dataset
from didact.errors import DataError
from didact.mixtures import Mixture, build_mixture
from didact.spec import DataSpec, TokensSpec, TrainingSpec
from didact.tokens.cache import Part, prepare
from didact.tokens.table import TokenTable
from didact.tokens.template import TemplateContract


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


def prepare_mixture(
    datasets: Sequence[Dataset],
    data: DataSpec,
    tokens: TokensSpec,
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    cache_dir: Path,
    training: TrainingSpec,
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

    Raises:
        DataError: the datasets are not those of `data.sources`, a source has no usable sample, or `max_epochs` allows
            fewer samples than the run asks for.
        TemplateError: the template has no property by which answers can be found in its text.
    """
    names = [dataset.name for dataset in datasets]
    if names != [source.name for source in data.sources]:
        raise DataError(f"datasets are {names}; data.sources are {[source.name for source in data.sources]}")

    def table(dataset: Dataset, conversations: Sequence[Conversation], part: Part) -> TokenTable:
        return prepare(
            conversations,
            source=dataset.name,
            source_fingerprint=dataset.fingerprint,
            tokenizer=tokenizer,
            contract=contract,
            tokens=tokens,
            cache_dir=cache_dir,
            part=part,
        )

    tables = tuple(table(dataset, dataset.train, "train") for dataset in datasets)
    for dataset, trained in zip(datasets, tables, strict=True):
        _check_usable(dataset, trained)
    rows = [len(trained) for trained in tables]
    num_samples = training.num_steps(sum(rows)) * training.global_batch_size
    mixture = build_mixture(data, rows, [trained.stats.mean_tokens for trained in tables], num_samples)
    held_out = {
        dataset.name: table(dataset, dataset.held_out, "held_out") for dataset in datasets if len(dataset.held_out)
    }
    return PreparedMixture(tables, held_out, mixture, mixture.fingerprint([trained.fingerprint for trained in tables]))


_ADVICE = {
    "answer_cut": "raise tokens.max_length",
    "too_long": "raise tokens.max_length or set tokens.truncation to end",
    "template_refused": "set tokens.template to alpaca",
}


def _check_usable(dataset: Dataset, table: TokenTable) -> None:
    if len(table):
        return
    rejected = table.stats.rejected
    reasons = ", ".join(f"{reason} {count}" for reason, count in rejected.items()) or "there are none"
    advice = [_ADVICE[reason] for reason in rejected if reason in _ADVICE]
    raise DataError(
        f"source {dataset.name!r}: none of {len(dataset.train)} training conversations can be learned from ({reasons})"
        + (f"; {' or '.join(advice)}" if advice else "")
    )
