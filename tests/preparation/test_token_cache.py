"""The token cache: equal on every opening, made once and in one pass, never half-written, rebuilt when damaged."""

import json
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from didact.cache.entry import CacheEntry
from didact.datasets import Conversation, Dataset, Message, load_dataset
from didact.datasets.load import conversations_entry
from didact.datasets.sources import conversion
from didact.datasets.sources.opening import open_source
from didact.datasets.stored.view import ConversationView
from didact.errors import DataError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.preparation import Encoder, PartDone, PartJob, prepare_source, run_here, tokenize
from didact.spec import SourceSpec, TokensSpec
from didact.tokens import Rejection, TemplateContract, TokenTable, encode, encode_all, open_table, view_table
from didact.tokens.shards import TokenWriter
from tests.fakes.damages import DAMAGES
from tests.fakes.datasets import stored_dataset
from tests.fakes.processes import begin, forking
from tests.fakes.web_server import serve

TOKENS = TokensSpec(max_length=100)


def encoder(choice: Any = "auto", **tokens: Any) -> Encoder:
    tokenizer = byte_tokenizer()
    return Encoder(tokenizer, TemplateContract.build(tokenizer, choice), TOKENS.model_copy(update=tokens))


def conversations(count: int = 30) -> list[Conversation]:
    """Every seventh is too long to keep its answer, every fifth is cut."""
    made = []
    for index in range(count):
        question = f"why {index}? " * (30 if index % 7 == 3 else 1)
        answer = "好 🎉" + "long " * (30 if index % 5 == 0 else index % 4)
        made.append(Conversation((Message("user", question), Message("assistant", answer)), row=index))
    return made


def counted(jobs_done: list[PartJob]) -> Any:
    def run(jobs: Sequence[PartJob], using: Encoder) -> Iterator[PartDone]:
        jobs_done.extend(jobs)
        return run_here(jobs, using)

    return run


def table_of(dataset: Dataset, cache: Path, part: str = "train", using: Encoder | None = None) -> TokenTable:
    return view_table(tokenize(dataset, using or encoder(), cache), getattr(dataset, part), dataset.name)


def contents(table: TokenTable) -> list[object]:
    samples = [(sample.ids.tolist(), sample.mask.tolist()) for sample in table]
    arrays = (table.rows, table.lengths, table.supervised)
    return [table.fingerprint, table.stats, samples, *(array.tolist() for array in arrays)]


@pytest.mark.parametrize("parts", [1, 3])
def test_the_table_holds_what_encode_makes(parts: int, tmp_path: Path) -> None:
    rows = conversations(300)
    table = table_of(stored_dataset(tmp_path, "chat", rows, parts=parts), tmp_path)
    using = encoder()
    expected = [(row.row, encode(row, using.tokenizer, using.contract, TOKENS)) for row in rows]
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
    assert stats.truncated == sum(row % 5 == 0 for row, _ in kept) > 0
    assert stats.longest == table.lengths.max() == 100
    assert stats.mean_tokens == pytest.approx(table.lengths.mean())
    assert (table[0].ids.dtype, table[0].mask.dtype, table.name) == ("int32", "bool", "chat")
    assert isinstance(table.lengths, np.memmap) and isinstance(table.rows, np.memmap)


def test_many_small_shards_hold_the_same_as_one(tmp_path: Path) -> None:
    dataset, using = stored_dataset(tmp_path, "chat", conversations(50)), encoder()
    rows = list(dataset.train)
    results = encode_all(rows, using.tokenizer, using.contract, using.tokens)
    tables = []
    for shard_rows in (7, 1000):
        entry = CacheEntry(tmp_path / "tokens" / f"of-{shard_rows}")

        def make(keys: list[str], entry: CacheEntry = entry, shard_rows: int = shard_rows) -> None:
            for key in keys:
                with TokenWriter(entry, key, shard_rows) as writer:
                    writer.add(range(50), rows, results)

        entry.fill(["0"], {}, make)
        tables.append(view_table(entry, dataset.train, "chat"))
    assert [len(table.shards) for table in tables] == [8, 1]
    assert contents(tables[0])[1:] == contents(tables[1])[1:]


def test_threads_that_ask_for_one_index_have_it_written_once(tmp_path: Path) -> None:
    dataset = stored_dataset(tmp_path, "chat", conversations(300), parts=3)
    tokens, together = tokenize(dataset, encoder(), tmp_path), threading.Barrier(6)

    def ask(_: int) -> tuple[TokenTable, int]:
        together.wait()
        table = view_table(tokens, dataset.train, "chat")
        return table, table.address.folder.stat().st_ino

    with ThreadPoolExecutor(6) as threads:
        tables = list(threads.map(ask, range(6)))
    assert len({inode for _, inode in tables}) == 1
    assert all(contents(table) == contents(tables[0][0]) for table, _ in tables)


def test_a_first_token_that_is_learned_has_no_target(tmp_path: Path) -> None:
    table = table_of(stored_dataset(tmp_path, "chat", conversations()), tmp_path, using=encoder(loss_on="all"))
    assert table[0].mask.all()
    assert (table.supervised == table.lengths - 1).all()
    assert table.stats.supervised == table.stats.tokens - table.stats.samples


def test_no_such_sample(tmp_path: Path) -> None:
    table = table_of(stored_dataset(tmp_path, "chat", conversations()), tmp_path)
    for index in (-1, len(table)):
        with pytest.raises(IndexError, match="chat has"):
            table[index]
    assert len(list(table)) == len(table)


def test_the_second_opening_does_nothing_and_other_processes_open_by_the_place(tmp_path: Path) -> None:
    dataset, jobs = stored_dataset(tmp_path, "chat", conversations(), held_out=4, parts=2), list[PartJob]()
    entry = tokenize(dataset, encoder(), tmp_path, counted(jobs))
    assert len(jobs) == 2
    first, held_out = (view_table(entry, view, "chat") for view in (dataset.train, dataset.held_out))
    assert tokenize(dataset, encoder(), tmp_path, counted(jobs)) == entry and len(jobs) == 2
    assert contents(view_table(entry, dataset.train, "renamed")) == contents(first)
    assert contents(open_table(first.address, "chat")) == contents(first) == contents(pickle.loads(pickle.dumps(first)))
    assert sorted([*first.rows, *held_out.rows, 3, 10, 17, 24]) == list(range(30))


def test_dropped_rows_cost_no_tokenization(tmp_path: Path) -> None:
    dataset, jobs = stored_dataset(tmp_path, "chat", conversations()), list[PartJob]()
    whole = table_of(dataset, tmp_path)
    keep = np.arange(30) % 2 == 0
    fewer = dataset.without(keep, {"duplicate": 15})
    table = view_table(tokenize(fewer, encoder(), tmp_path, counted(jobs)), fewer.train, "chat")
    assert not jobs and table.fingerprint != whole.fingerprint
    assert table.rows.tolist() == [row for row in whole.rows.tolist() if row % 2 == 0]
    assert table[1].ids.tolist() == whole[whole.rows.tolist().index(int(table.rows[1]))].ids.tolist()


def test_whatever_decides_the_tokens_is_part_of_the_address(tmp_path: Path) -> None:
    dataset = stored_dataset(tmp_path, "chat", conversations())
    other = stored_dataset(tmp_path, "chat", conversations(29))
    chosen = replace(dataset, chosen=np.arange(5))
    encoders = [encoder(), encoder("alpaca"), encoder(max_length=101), encoder(truncation="drop")]
    encoders.append(encoder(loss_on="last_turn"))
    entries = [tokenize(dataset, using, tmp_path) for using in encoders]
    entries += [tokenize(each, encoder(), tmp_path) for each in (other, chosen)]
    assert len({entry.address for entry in entries}) == len(entries)
    assert tokenize(dataset, encoder(packing=False), tmp_path) == entries[0]


def test_nothing_usable_is_an_empty_table(tmp_path: Path) -> None:
    rows = [row for row in conversations() if row.row % 7 == 3]
    for _ in range(2):
        table = table_of(stored_dataset(tmp_path, "chat", rows), tmp_path)
        assert (len(table), table.stats.rejected, table.stats.mean_tokens) == (0, {"answer_cut": len(rows)}, 0)
        assert len(table.lengths) == len(table.supervised) == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_never_served_and_made_again(damage: str, tmp_path: Path) -> None:
    dataset, jobs = stored_dataset(tmp_path, "chat", conversations(), parts=3), list[PartJob]()
    table = table_of(dataset, tmp_path)
    before, entry = contents(table), table.address.tokens
    DAMAGES[damage](entry.folder / "1-0000.tokens.arrow")
    with pytest.raises(DataError, match="prepare the data again"):
        contents(open_table(table.address, "chat"))
    tokenize(dataset, encoder(), tmp_path, counted(jobs))
    assert [job.key for job in jobs] == ["1"]
    assert contents(table_of(dataset, tmp_path)) == before


@pytest.mark.parametrize("name", ["lengths.npy", "shard.npy", "stats.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_made_again(damage: str, name: str, tmp_path: Path) -> None:
    dataset = stored_dataset(tmp_path, "chat", conversations(), parts=3)
    table = table_of(dataset, tmp_path)
    before = contents(table)
    DAMAGES[damage](table.address.folder / name)
    assert contents(table_of(dataset, tmp_path)) == before


def write(path: Path, rows: int = 60) -> SourceSpec:
    records = [{"instruction": f"question {row}", "output": f"answer {row}"} for row in range(rows)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return SourceSpec(name="rows", path=str(path))


def prepared(source: SourceSpec, cache: Path, jobs: list[PartJob], using: Encoder | None = None) -> TokenTable:
    """As a recipe's data is prepared, in small parts."""
    using, run = using or encoder(), counted(jobs)
    opened = open_source(source, 500)
    prepare_source(opened, source, 0, using, cache, run)
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None, opened=opened)
    assert isinstance(dataset.train, ConversationView)
    return view_table(tokenize(dataset, using, cache, run), dataset.train, source.name)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_raw_rows_are_read_in_one_pass_and_never_again(tmp_path: Path, cache: Path) -> None:
    source, jobs = write(tmp_path / "a.jsonl"), list[PartJob]()
    first = prepared(source, cache, jobs)
    assert len(jobs) > 3 and all(job.conversion is not None and job.tokens is not None for job in jobs)
    jobs.clear()
    assert contents(prepared(source, cache, jobs)) == contents(first) and not jobs
    other = prepared(source, cache, jobs, encoder("alpaca", max_length=300))
    assert jobs and all(job.conversion is None for job in jobs), "another template read raw rows"
    assert other.rows.tolist() == first.rows.tolist() == list(range(60))


def test_of_a_source_with_max_rows_only_the_chosen_are_tokenized(tmp_path: Path, cache: Path) -> None:
    source, jobs = write(tmp_path / "a.jsonl"), list[PartJob]()
    some = source.model_copy(update={"max_rows": 9, "held_out_rows": 3})
    table = prepared(some, cache, jobs)
    chosen = [job.chosen for job in jobs if job.conversion is None]
    assert sum(len(each) for each in chosen if each is not None) == 9
    whole = prepared(source, cache, [])
    assert len(table) == 6 and table.address.tokens != whole.address.tokens
    for index, row in enumerate(table.rows.tolist()):
        assert table[index].ids.tolist() == whole[row].ids.tolist()


def test_of_a_stream_with_max_rows_both_readings_are_jobs_and_the_second_makes_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "BATCH_ROWS", 4)  # several batches a part
    jobs, tables = list[PartJob](), []
    (tmp_path / "www").mkdir()
    with serve(tmp_path / "www") as web:
        write(tmp_path / "www" / "a.jsonl")
        source = SourceSpec(name="rows", path=f"{web.url}/a.jsonl", stream=True, max_rows=20, held_out_rows=3)
        for name, told in (("jobs", jobs), ("afterwards", None)):
            monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / name))
            if told is None:  # converted first, and tokenized from what is stored
                load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None, opened=open_source(source, 500))
            tables.append(prepared(source, tmp_path / name, told if told is not None else []))
    conversions = [job.conversion for job in jobs if job.conversion is not None]
    assert len(conversions) == len(jobs) == 2 * len({job.key for job in jobs})
    assert [each.texts for each in conversions] == [False] * (len(jobs) // 2) + [True] * (len(jobs) // 2)
    assert [job.tokens is not None for job in jobs] == [each.texts for each in conversions]
    assert sum(len(each.kept) for each in conversions if each.kept is not None) == 20
    assert contents(tables[0]) == contents(tables[1])
    assert tables[0].rows.tolist() == tables[1].rows.tolist() and len(tables[0]) == 17


def prepare_there(source: SourceSpec, cache: Path) -> None:
    prepared(source, cache, [])


@pytest.mark.parametrize("fault", ["shards:kill@2", "manifest:kill@0"])
def test_a_killed_preparation_goes_on_where_it_was(fault: str, tmp_path: Path, cache: Path) -> None:
    source, jobs = write(tmp_path / "a.jsonl"), list[PartJob]()
    (cache / "tokens").mkdir(parents=True)
    (cache / "tokens" / "failpoint").write_text(fault)
    worker = begin(prepare_there, source, cache)
    worker.join(timeout=120)
    assert worker.exitcode == -signal.SIGKILL
    (folder,) = (path for path in (cache / "tokens").iterdir() if path.is_dir())
    assert CacheEntry(folder).manifest() is None
    finished = {path.stem for path in (folder / "parts").glob("*.json")}
    table = prepared(source, cache, jobs)
    assert finished and finished.isdisjoint(job.key for job in jobs if job.tokens)
    assert table.address.tokens.folder == folder
    unbroken = prepared(source, tmp_path / "elsewhere", [])
    assert contents(table) == contents(unbroken)


def prepare_at_once(source: SourceSpec, cache: Path, barrier: Any, results: Any) -> None:
    jobs: list[PartJob] = []
    barrier.wait(timeout=120)
    table = prepared(source, cache, jobs)
    results.put((len(jobs), contents(table)))


def test_two_processes_that_ask_at_once_prepare_it_once(tmp_path: Path, cache: Path) -> None:
    source = write(tmp_path / "a.jsonl", 100)
    context = forking()
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (source, cache, barrier, results)
    workers = [begin(prepare_at_once, *arguments) for _ in range(2)]
    (jobs, first), (other_jobs, second) = (results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
    assert first == second
    assert sorted((jobs, other_jobs)) == [0, len(open_source(source, 500).parts)]
    assert conversations_entry(open_source(source, 500), source, 0).is_complete()


def test_a_conversation_of_several_samples_is_stored_with_all_and_counts_once(tmp_path: Path) -> None:
    """Under a template that ends the last answer only otherwise, each answer has a sample of its own."""
    tokenizer = byte_tokenizer(
        "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}"
        "{% if loop.last and m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
    )
    using = Encoder(tokenizer, TemplateContract.build(tokenizer, "auto"), TOKENS)
    short = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    longer = (*short, Message("user", "long " * 40), Message("assistant", "e"))
    rows = [Conversation(short, row=0), Conversation(longer, row=1), Conversation(short[:2], row=2)]
    table = table_of(stored_dataset(tmp_path, "chat", rows), tmp_path, using=using)
    assert table.rows.tolist() == [0, 0, 1, 1, 2] and (table.stats.samples, table.stats.left_out) == (5, 1)
    learned = [tokenizer.decode(sample.ids[sample.mask]) for sample in table]
    assert learned == [f"{answer}<|im_end|>" for answer in "bdbdb"]
