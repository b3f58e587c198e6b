"""The token cache: equal on every opening, built once, never half-written, rebuilt when damaged."""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from didact.datasets.types import Conversation, Message
from didact.errors import DataError
from didact.spec import TokensSpec
from didact.tokens import Rejection, TemplateContract, TokenTable, encode, open_table, prepare
from tests.fakes.tokenizer import byte_tokenizer

TOKENS = TokensSpec(max_length=100)


def conversations(count: int = 30) -> list[Conversation]:
    """Every seventh is too long to keep its answer, every fifth is cut; row numbers have gaps."""
    made = []
    for index in range(count):
        question = "why? " * (30 if index % 7 == 3 else 1)
        answer = "好 🎉" + "long " * (30 if index % 5 == 0 else index % 4)
        made.append(Conversation((Message("user", question), Message("assistant", answer)), row=index * 2))
    return made


class Counted(Sequence[Conversation]):
    """Rows that count how often they are read, and may fail at one of them."""

    def __init__(self, rows: list[Conversation], fail_at: int | None = None) -> None:
        self.rows, self.fail_at, self.reads = rows, fail_at, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:  # type: ignore[override]
        if index == self.fail_at:
            raise OSError("disk gone")
        self.reads += 1
        return self.rows[index]


def prepared(rows: Sequence[Conversation], cache: Path, **changes: object) -> TokenTable:
    tokenizer = byte_tokenizer()
    settings = {
        "source": "chat",
        "source_fingerprint": "f1",
        "tokenizer": tokenizer,
        "contract": TemplateContract.build(tokenizer, "auto"),
        "tokens": TOKENS,
        "cache_dir": cache,
    }
    return prepare(rows, **{**settings, **changes})


def contents(table: TokenTable) -> list[object]:
    arrays = (table.ids, table.mask, table.offsets, table.rows, table.lengths, table.supervised)
    return [table.fingerprint, table.stats, *(array.tolist() for array in arrays)]


def folder_of(cache: Path) -> Path:
    (folder,) = (entry for entry in (cache / "tokens").iterdir() if entry.is_dir())
    return folder


def test_the_table_holds_what_encode_makes(tmp_path: Path) -> None:
    rows = conversations(1100)
    table = prepared(rows, tmp_path)
    tokenizer = byte_tokenizer()
    contract = TemplateContract.build(tokenizer, "auto")
    expected = [(row.row, encode(row, tokenizer, contract, TOKENS)) for row in rows]
    kept = [(row, result) for row, result in expected if not isinstance(result, Rejection)]
    assert 0 < len(kept) < len(rows) and len(table) == len(kept)
    for index, (row, result) in enumerate(kept):
        assert table[index].ids.tolist() == result.ids.tolist()
        assert table[index].mask.tolist() == result.mask.tolist()
        assert (table.row(index), table.length(index)) == (row, len(result.ids))
        assert table.num_supervised(index) == result.mask[1:].sum()
    stats = table.stats
    assert (stats.samples, stats.tokens, stats.supervised) == (len(kept), table.lengths.sum(), table.supervised.sum())
    assert stats.rejected == {"answer_cut": len(rows) - len(kept)}
    assert stats.truncated == sum(row % 10 == 0 for row, _ in kept) > 0
    assert stats.longest == table.lengths.max() == 100
    assert stats.mean_tokens == pytest.approx(table.lengths.mean())
    assert (table[0].ids.dtype, table[0].mask.dtype, table.name) == ("int32", "bool", "chat")


def test_a_first_token_that_is_learned_has_no_target(tmp_path: Path) -> None:
    table = prepared(conversations(), tmp_path, tokens=TokensSpec(max_length=100, loss_on="all"))
    assert table[0].mask.all()
    assert (table.supervised == table.lengths - 1).all()
    assert table.stats.supervised == table.stats.tokens - table.stats.samples


def test_no_such_sample(tmp_path: Path) -> None:
    table = prepared(conversations(), tmp_path)
    for index in (-1, len(table)):
        with pytest.raises(IndexError, match="chat has"):
            table[index]
    assert len(list(table)) == len(table)


def test_the_second_opening_reads_no_row(tmp_path: Path) -> None:
    first = prepared(conversations(), tmp_path)
    written = folder_of(tmp_path).stat().st_mtime_ns
    rows = Counted(conversations())
    second = prepared(rows, tmp_path)
    assert rows.reads == 0 and folder_of(tmp_path).stat().st_mtime_ns == written
    assert contents(second) == contents(first)
    assert isinstance(second.ids, np.memmap)


def test_the_name_is_not_part_of_the_key(tmp_path: Path) -> None:
    first, second = prepared(conversations(), tmp_path), prepared(Counted([]), tmp_path, source="renamed")
    assert (first.fingerprint, second.name) == (second.fingerprint, "renamed")


def test_whatever_decides_the_tokens_is_part_of_the_key(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    changes: list[dict[str, object]] = [
        {},
        {"source_fingerprint": "f2"},
        {"part": "held_out"},
        {"contract": TemplateContract.build(tokenizer, "alpaca")},
        {"tokens": TokensSpec(max_length=101)},
        {"tokens": TokensSpec(max_length=100, truncation="drop")},
        {"tokens": TokensSpec(max_length=100, loss_on="last_turn")},
    ]
    tables = [prepared(conversations(), tmp_path, **change) for change in changes]
    assert len({table.fingerprint for table in tables}) == len(changes)
    packing = prepared(Counted([]), tmp_path, tokens=TokensSpec(max_length=100, packing=False))
    assert contents(packing) == contents(tables[0])


def test_nothing_usable_is_an_empty_table(tmp_path: Path) -> None:
    rows = [row for row in conversations() if len(row.messages[0].content) > 100]
    for _ in range(2):
        table = prepared(rows, tmp_path)
        assert (len(table), table.stats.rejected, table.stats.mean_tokens) == (0, {"answer_cut": len(rows)}, 0)
        assert len(table.lengths) == len(table.supervised) == 0


def rewrite_stats(folder: Path, **changes: object) -> None:
    file = folder / "stats.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def empty_a_sample(file: Path) -> None:
    offsets = np.load(file)
    offsets[1] = offsets[2]
    np.save(file, offsets)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "ids missing": lambda folder: (folder / "ids.npy").unlink(),
    "stats missing": lambda folder: (folder / "stats.json").unlink(),
    "everything missing": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
    "ids cut": lambda folder: cut(folder / "ids.npy"),
    "mask cut": lambda folder: cut(folder / "mask.npy"),
    "rows empty": lambda folder: (folder / "rows.npy").write_bytes(b""),
    "offsets of other type": lambda folder: np.save(folder / "offsets.npy", np.zeros(3)),
    "offsets disordered": lambda folder: np.save(folder / "offsets.npy", np.load(folder / "offsets.npy")[::-1]),
    "offsets with an empty sample": lambda folder: empty_a_sample(folder / "offsets.npy"),
    "mask emptied": lambda folder: np.save(folder / "mask.npy", np.load(folder / "mask.npy") & False),
    "other number of samples": lambda folder: rewrite_stats(folder, samples=1),
    "other number of tokens": lambda folder: rewrite_stats(folder, tokens=1),
    "unknown figure": lambda folder: rewrite_stats(folder, colour=1),
    "stats no JSON": lambda folder: (folder / "stats.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_built_again(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = contents(prepared(conversations(), tmp_path))
    DAMAGES[damage](folder_of(tmp_path))
    with pytest.raises(DataError, match="token cache"):
        open_table(folder_of(tmp_path), "chat")
    rows = Counted(conversations())
    assert contents(prepared(rows, tmp_path)) == before
    assert rows.reads == len(rows) and "tokenizing chat again" in caplog.text


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    rows = Counted(conversations(1100), fail_at=1050)
    with pytest.raises(OSError, match="disk gone"):
        prepared(rows, tmp_path)
    assert [entry for entry in (tmp_path / "tokens").iterdir() if entry.is_dir()] == []
    assert len(prepared(conversations(1100), tmp_path)) > 0


def prepare_at_once(cache: Path, barrier: Barrier, results: "Queue[tuple[int, list[object]]]") -> None:
    rows = Counted(conversations(1500))
    barrier.wait(timeout=120)
    table = prepared(rows, cache)
    results.put((rows.reads, contents(table)))


def received(results: "Queue[tuple[int, list[object]]]", count: int) -> Iterator[tuple[int, list[object]]]:
    for _ in range(count):
        yield results.get(timeout=120)


def test_two_processes_that_ask_at_once_prepare_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=prepare_at_once, args=(tmp_path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    (reads, first), (other_reads, second) = received(results, 2)
    for worker in workers:
        worker.join(timeout=60)
    assert first == second
    assert sorted((reads, other_reads)) == [0, 1500]
    assert folder_of(tmp_path).name == first[0]
