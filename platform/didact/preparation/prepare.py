"""A recipe's data, ready for training: read, checked, mixed, tokenized. Cached, so every process may ask."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from didact.datasets import Dataset, load_dataset
from didact.datasets.catalog import check_commercial
from didact.datasets.quality import EvalText, Kept, filtered, row_filters
from didact.env import cache_dir
from didact.models import check_fits, load_tokenizer
from didact.preparation.mixture import PreparedMixture, prepare_mixture
from didact.preparation.parts import Encoder, Runner, converter, run_here, tokenize
from didact.preparation.row_scores import RowScores, ScoreJob, Scorer, all_stay, chosen, row_scores
from didact.spec import FinetuneSpec, HeldOutTask, TaskSpec
from didact.tokens import StepLoader, TemplateContract, view_table

TaskTexts = Callable[[Sequence[TaskSpec]], Iterable[EvalText]]
"""Gives the questions of evaluation tasks: `didact.evaluation.task_texts`."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """What a worker trains on, and how it is rendered."""

    datasets: tuple[Dataset, ...]
    """Its sources; none where only their tokens were opened."""
    mixture: PreparedMixture
    tokenizer: PreTrainedTokenizerBase
    contract: TemplateContract
    num_steps: int

    def loader(self, spec: FinetuneSpec, *, packing: bool | None = None, share_prefixes: bool = False) -> StepLoader:
        """Batches as a pure function of (seed, step, rank, world size); `packing` None is the recipe's."""
        return StepLoader(
            tables=self.mixture.tables,
            mixture=self.mixture.mixture,
            global_batch_size=spec.training.global_batch_size,
            micro_batch_size=spec.training.micro_batch_size,
            packing=spec.packing if packing is None else packing,
            pad_id=self.tokenizer.pad_token_id,
            share_prefixes=share_prefixes,
        )


def score_here(jobs: Sequence[ScoreJob], spec: FinetuneSpec) -> Iterator[int]:
    """Do jobs one after the other in this process, on its GPU where the recipe's workers would use one."""
    from didact.preparation.scoring import ScoringModel  # loads what computes

    model = ScoringModel(spec)
    return (model.score(job) for job in jobs)


def prepare_data(
    spec: FinetuneSpec,
    quarantine: Path | None = None,
    run: Runner = run_here,
    task_texts: TaskTexts | None = None,
    score: Scorer = score_here,
) -> PreparedData:
    """Read and tokenize the recipe's sources, as far as the cache does not hold them, and leave rows out.

    Args:
        spec: the recipe.
        quarantine: folder for rejected rows; None writes none (they are counted all the same).
        run: does the work, here or on other machines.
        task_texts: gives the questions of the recipe's tasks; needed where `data.contamination.policy` is not `allow`.
        score: has the base score rows, where a source's `choose` asks for it.

    Raises:
        DataError: unreadable sources, more bad rows than `data.max_bad_rows_share`, data that is not known to allow
            commercial use where `data.commercial` asks for it, contaminated rows where `data.contamination.policy`
            is `fail`, or a `choose.below` that leaves no row.
        ModelError: a base that lacks rows for its tokenizer's ids, or positions for `tokens.max_length`.
        TemplateError: no usable chat template.
    """
    encoder = _encoder(spec)
    left = _without_filtered(spec, _read(spec, encoder, quarantine, run), task_texts)
    kept = _chosen(left, _scores(spec, encoder, left, run, score))
    tokenizer, contract = encoder.tokenizer, encoder.contract
    mixture = prepare_mixture(
        kept, spec.data, spec.tokens, tokenizer, contract, cache_dir(), spec.training, run, quarantine
    )
    num_steps = spec.training.num_steps(mixture.mixture.num_rows)
    return PreparedData(mixture.datasets, mixture, tokenizer, contract, num_steps)


def read_sources(spec: FinetuneSpec, quarantine: Path | None = None, run: Runner = run_here) -> tuple[Dataset, ...]:
    """The recipe's sources as `prepare_data` reads them, before any row is left out for what other rows say.

    Raises:
        DataError: unreadable sources, more bad rows than `data.max_bad_rows_share`, or data that is not known to allow
            commercial use where `data.commercial` asks for it.
        TemplateError: no usable chat template.
    """
    return _read(spec, _encoder(spec), quarantine, run)


def training_rows(spec: FinetuneSpec, task_texts: TaskTexts | None = None) -> tuple[Dataset, ...]:
    """The recipe's sources with the rows that `prepare_data` trains on, untokenized.

    Raises:
        DataError, TemplateError: as `prepare_data`.
    """
    encoder = _encoder(spec)
    left = _without_filtered(spec, _read(spec, encoder, None, run_here), task_texts)
    return _chosen(left, _scores(spec, encoder, left, run_here, score_here))


def scores_of_rows(spec: FinetuneSpec, task_texts: TaskTexts | None = None) -> dict[str, tuple[Dataset, RowScores]]:
    """Each source with a `choose`, as it is before rows are chosen, and the figures of its rows.

    Raises:
        DataError, TemplateError: as `prepare_data`.
    """
    if not any(source.choose for source in spec.data.sources):
        return {}
    encoder = _encoder(spec)
    left = _without_filtered(spec, _read(spec, encoder, None, run_here), task_texts)
    scores = _scores(spec, encoder, left, run_here, score_here)
    return {dataset.name: (dataset, scores[dataset.name]) for dataset in left if dataset.name in scores}


def _scores(
    spec: FinetuneSpec, encoder: Encoder, datasets: Sequence[Dataset], run: Runner, score: Scorer
) -> dict[str, RowScores]:
    found, tokenizer = {}, encoder.tokenizer
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, *encoder.contract.stop_token_ids)
    before = next((end for end in ends if end is not None), 0)
    for source, dataset in zip(spec.data.sources, datasets, strict=True):
        if source.choose is not None:
            table = view_table(tokenize(dataset, encoder, cache_dir(), run), dataset.train, dataset.name)
            found[dataset.name] = row_scores(dataset, table, source.choose, spec, before, score)
    return found


def _chosen(datasets: Sequence[Dataset], scores: Mapping[str, RowScores]) -> tuple[Dataset, ...]:
    def choose(left: Sequence[Dataset]) -> list[Kept]:
        return [chosen(scores[each.name]) if each.name in scores else all_stay(each) for each in left]

    return filtered(datasets, [choose]) if scores else tuple(datasets)


def _without_filtered(
    spec: FinetuneSpec, datasets: Sequence[Dataset], task_texts: TaskTexts | None
) -> tuple[Dataset, ...]:
    return filtered(datasets, row_filters(spec.data, partial(_questions, spec, task_texts)))


def _encoder(spec: FinetuneSpec) -> Encoder:
    check_commercial(spec.data)
    tokenizer = load_tokenizer(spec.model)
    check_fits(spec.model, tokenizer, spec.tokens.max_length)
    return Encoder(tokenizer, TemplateContract.of(tokenizer, spec.tokens), spec.tokens)


def _read(spec: FinetuneSpec, encoder: Encoder, quarantine: Path | None, run: Runner) -> tuple[Dataset, ...]:
    return tuple(
        load_dataset(
            source,
            seed=spec.data.seed,
            max_bad_rows_share=spec.data.max_bad_rows_share,
            quarantine_dir=quarantine,
            convert=converter(source, encoder, cache_dir(), run),
        )
        for source in spec.data.sources
    )


def _questions(spec: FinetuneSpec, task_texts: TaskTexts | None) -> Iterable[EvalText]:
    tasks = spec.evaluation.tasks if spec.evaluation else ()
    if task_texts is not None:
        return task_texts(tasks)
    if any(not isinstance(task, HeldOutTask) for task in tasks):
        raise TypeError("data.contamination is against the questions of evaluation.tasks, and task_texts is not given")
    return ()
