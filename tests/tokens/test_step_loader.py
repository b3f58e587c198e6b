"""The step loader: the same step for any number of workers, and honest figures."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from didact.datasets.conversation import Conversation, Message
from didact.datasets.dataset import Dataset
from didact.env import cache_dir
from didact.errors import DataError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.mixtures import Mixture
from didact.preparation import PreparedMixture, prepare_mixture
from didact.spec import DataSpec, SourceSpec, TokensSpec, TrainingSpec
from didact.tokens import Batch, StepLoader, TemplateContract, deal
from tests.fakes.datasets import stored_dataset

PAD = 257
DATA = DataSpec(sources=(SourceSpec(name="chat", path="-"), SourceSpec(name="sums", path="-", weight=3)), seed=5)


def dataset(name: str, rows: int, held_out: int = 0, question: str = "why?") -> Dataset:
    """The answer's length and text say which row it is; odd raw rows were refused."""
    made = [
        Conversation((Message("user", question), Message("assistant", name + "x" * (index * 7 % 40))), row=2 * index)
        for index in range(rows + held_out)
    ]
    return stored_dataset(cache_dir(), name, made, held_out)


def mixed(cache: Path, *datasets: Dataset, data: DataSpec = DATA, tokens: TokensSpec | None = None) -> PreparedMixture:
    tokenizer = byte_tokenizer()
    contract = TemplateContract.build(tokenizer, "auto")
    training = TrainingSpec(steps=10)
    return prepare_mixture(datasets, data, tokens or TokensSpec(), tokenizer, contract, cache, training)


@pytest.fixture
def loader(tmp_path: Path) -> StepLoader:
    prepared = mixed(tmp_path, dataset("chat", 40), dataset("sums", 25))
    return StepLoader(prepared.tables, prepared.mixture, 7, 2, True, PAD)


def samples_in(batch: Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(ids, targets) of each sample of a packed or padded batch."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for row in range(len(batch.input_ids)):
        real = int(batch.attention_mask[row].sum()) if batch.attention_mask is not None else batch.input_ids.shape[1]
        ids, targets = batch.input_ids[row, :real].tolist(), batch.targets[row, :real].tolist()
        starts = [place for place in range(real) if batch.position_ids[row, place] == 0]
        ends = [*starts[1:], real]
        found += [(tuple(ids[a:b]), tuple(targets[a:b])) for a, b in zip(starts, ends, strict=True)]
    return found


def samples_of(loader: StepLoader, step: int, world: int) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
    shares = [loader.step(step, rank, world) for rank in range(world)]
    return Counter(sample for share in shares for batch in share.micro_batches for sample in samples_in(batch))


@pytest.mark.parametrize("packing", [True, False])
def test_any_number_of_workers_computes_the_same_samples(loader: StepLoader, packing: bool) -> None:
    loader = replace(loader, packing=packing)
    for step in (0, 1, 40):
        alone = samples_of(loader, step, 1)
        assert alone.total() == 7
        for world in (2, 3, 7, 9):
            assert samples_of(loader, step, world) == alone


def test_figures_are_of_the_global_batch(loader: StepLoader) -> None:
    for step in range(5):
        (whole,) = {(b.num_tokens, b.num_supervised, b.sample_ids) for b in (loader.step(step, r, 3) for r in range(3))}
        batches = [batch for rank in range(3) for batch in loader.step(step, rank, 3).micro_batches]
        assert sum(batch.num_tokens for batch in batches) == whole[0]
        assert sum(batch.num_supervised for batch in batches) == whole[1]
        assert sum(int((batch.targets != -100).sum()) for batch in batches) == whole[1] > 0


def test_sample_ids_name_raw_rows_in_mixture_order(loader: StepLoader) -> None:
    ids = loader.step(3).sample_ids
    drawn = loader.mixture.ids(21, 28)
    assert ids == tuple(f"{loader.mixture.names[each.source]}/{2 * each.row}" for each in drawn)


def test_a_step_needs_no_history(loader: StepLoader, tmp_path: Path) -> None:
    again = mixed(tmp_path / "other", dataset("chat", 40), dataset("sums", 25))
    fresh = replace(loader, tables=again.tables, mixture=again.mixture)
    for step in range(4):
        loader.step(step)
    assert fresh.step(4).sample_ids == loader.step(4).sample_ids
    assert samples_of(fresh, 4, 1) == samples_of(loader, 4, 1)


def test_a_pass_over_a_source_uses_every_row_once(loader: StepLoader) -> None:
    seen = [name for step in range(60) for name in loader.step(step).sample_ids if name.startswith("sums/")]
    assert sorted(seen[:25]) == sorted(f"sums/{2 * row}" for row in range(25))


def test_micro_batches_hold_neighbours_in_length(loader: StepLoader) -> None:
    share = loader.step(2, 0, 2).micro_batches
    lengths = [[len(ids) for ids, _ in samples_in(batch)] for batch in share]
    assert [len(each) for each in lengths] == [2, 2]
    flat = [length for each in lengths for length in each]
    assert flat == sorted(flat, reverse=True)


def test_shares_are_alike_in_tokens_and_bounded_in_samples() -> None:
    assert deal([5, 9, 1, 1, 8, 4], 2) == ((1, 5, 2), (4, 0, 3))
    assert deal([100, 1, 1, 1], 2) == ((0, 3), (1, 2))
    assert deal([3, 3, 3, 3], 2) == ((0, 2), (1, 3))
    assert deal([3], 2) == ((0,), ())
    for world in (1, 2, 3, 4):
        assert all(deal([7] * 9, world))


def test_a_rank_outside_the_world_is_refused(loader: StepLoader) -> None:
    for rank, world in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="rank"):
            loader.step(0, rank, world)


def test_a_mixture_of_other_tables_is_refused(loader: StepLoader) -> None:
    other = Mixture.build(["chat", "sums"], [40, 24], [1.0, 1.0], [1, 1], unit="rows", seed=0)
    with pytest.raises(DataError, match=r"24.*25"):
        replace(loader, mixture=other)


def test_weights_are_shares_of_real_tokens(tmp_path: Path) -> None:
    prepared = mixed(tmp_path, dataset("chat", 30), dataset("sums", 30, question="long " * 30))
    loader = StepLoader(prepared.tables, prepared.mixture, 100, 8, True, PAD)
    tokens: Counter[str] = Counter()
    for name in (name for step in range(20) for name in loader.step(step).sample_ids):
        source, row = name.split("/")
        table = prepared.tables[prepared.mixture.names.index(source)]
        tokens[source] += table.length(table.rows.tolist().index(int(row)))
    assert tokens["sums"] / tokens.total() == pytest.approx(0.75, abs=0.01)


def test_held_out_rows_have_their_own_tables(tmp_path: Path) -> None:
    prepared = mixed(tmp_path, dataset("chat", 10, held_out=4), dataset("sums", 10))
    assert list(prepared.held_out) == ["chat"]
    assert prepared.held_out["chat"].rows.tolist() == [0, 2, 4, 6]
    assert prepared.tables[0].rows.tolist() == list(range(8, 28, 2))


def test_the_fingerprint_sees_tokens_and_order(tmp_path: Path) -> None:
    pair = (dataset("chat", 10), dataset("sums", 10, question="a long question?"))
    first = mixed(tmp_path, *pair).fingerprint
    assert mixed(tmp_path / "elsewhere", *pair).fingerprint == first
    others = [
        mixed(tmp_path, pair[0], dataset("sums", 11)),
        mixed(tmp_path, *pair, tokens=TokensSpec(max_length=100)),
        mixed(tmp_path, *pair, data=DATA.model_copy(update={"seed": 6})),
        mixed(tmp_path, *pair, data=DATA.model_copy(update={"weight_unit": "rows"})),
    ]
    assert len({first, *(other.fingerprint for other in others)}) == 5


def test_a_source_without_usable_samples_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source 'sums': none of 9 .*answer_cut 9.*raise tokens\.max_length"):
        mixed(tmp_path, dataset("chat", 9), dataset("sums", 9, question="long " * 30), tokens=TokensSpec(max_length=80))
    with pytest.raises(DataError, match=r"source 'chat': none of 0 .*there are none"):
        mixed(tmp_path, dataset("chat", 0), dataset("sums", 9))


def test_datasets_of_another_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.sources"):
        mixed(tmp_path, dataset("sums", 9), dataset("chat", 9))
