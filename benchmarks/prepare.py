"""Preparation beside the bare tokenizer and beside plain `datasets.map`, on synthetic rows of JSON lines.

    python benchmarks/prepare.py --rows 10000 100000
    python benchmarks/prepare.py --rows --ray
    python benchmarks/prepare.py --rows 1000000 --memory-only

Prints, for each number of rows: rate and peak memory of `didact data prepare`, rate of the bare fast tokenizer on
the same rendered text, and of `datasets.map` doing the same job; with `--ray` the rates of one and two Ray workers on
more rows, beside what two processes that share nothing reach on this machine. Every figure comes from a process of its
own, and one that dies ends the benchmark with its error. Rates of single processes are per CPU second; those of `--ray`
are wall time without the start of Ray and its workers, so nothing else should run.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from didact.datasets import load_dataset
from didact.datasets.sources.opening import open_source
from didact.models import load_tokenizer
from didact.preparation import Encoder, PartDone, PartJob, Runner, prepare_source, run_here, tokenize
from didact.spec import ModelSpec, SourceSpec, TokensSpec
from didact.tokens import TemplateContract

_TEXT = "the a of to water light number count answer because river seven green write explain which between"
WORDS = _TEXT.split()


class Measured(NamedTuple):
    """What a piece of work took."""

    cpu: float
    """Seconds."""
    wall: float
    """Seconds."""
    peak: float
    """MiB of resident memory."""


def write_rows(path: Path, rows: int) -> None:
    """Short instructions with answers of 10 to 60 words."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for row in range(rows):
            texts = [" ".join(draw.choices(WORDS, k=draw.randint(*span))) for span in ((5, 20), (10, 60))]
            stream.write(json.dumps({"instruction": f"{texts[0]} {row}", "input": "", "output": texts[1]}) + "\n")


def encoder() -> Encoder:
    """The bundled base's tokenizer with its own template."""
    tokenizer = load_tokenizer(ModelSpec())
    return Encoder(tokenizer, TemplateContract.build(tokenizer, "auto"), TokensSpec())


def prepare(path: Path, using: Encoder, run: Runner = run_here, part_bytes: int | None = None) -> None:
    """JSON lines in, token shards out."""
    cache = path.parent / "cache"
    for kind in ("conversations", "tokens"):  # the bundled base is in the cache as well
        shutil.rmtree(cache / kind, ignore_errors=True)
    source = SourceSpec(name="rows", path=str(path))
    opened = open_source(source, part_bytes)
    prepare_source(opened, source, 0, using, cache, run)
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None, opened=opened)
    tokenize(dataset, using, cache)


def bare(path: Path, using: Encoder) -> float:
    """CPU seconds of the tokenizer alone on the rendered texts, a thousand at a time."""
    seconds, source = 0.0, SourceSpec(name="rows", path=str(path))
    rows = load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None).train
    for start in range(0, len(rows), 1000):
        texts = [using.contract.render(using.tokenizer, row.messages, False) for row in rows[start : start + 1000]]
        begun = time.process_time()
        using.tokenizer(texts)
        seconds += time.process_time() - begun
    return seconds


def mapped(path: Path, using: Encoder) -> None:
    """The same job with `datasets.map`: read, render, tokenize, mask, store."""
    import datasets

    datasets.disable_progress_bars()

    def convert(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        talks = [
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            for question, answer in zip(batch["instruction"], batch["output"], strict=True)
        ]
        texts = using.tokenizer.apply_chat_template(talks, tokenize=False)
        prompts = using.tokenizer.apply_chat_template(
            [talk[:1] for talk in talks], tokenize=False, add_generation_prompt=True
        )
        found = using.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        masks = [
            [end > len(prompt) for _, end in offsets]
            for prompt, offsets in zip(prompts, found["offset_mapping"], strict=True)
        ]
        return {"ids": found["input_ids"], "mask": masks}

    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "hf"))
    done = loaded.map(convert, batched=True, remove_columns=loaded.column_names, load_from_cache_file=False)
    done.set_format("numpy")
    assert len(done[0]["ids"])


def on_ray(path: Path, workers: int) -> tuple[float, float]:
    """Wall seconds on a local Ray of so many CPUs, and how many of them were outside the parts."""
    from didact.cluster import ray_cluster, run_on_ray

    using, inside = encoder(), 0.0

    def run(jobs: Sequence[PartJob], encoder: Encoder) -> Iterator[PartDone]:
        nonlocal inside
        begun = time.perf_counter()
        yield from run_on_ray(jobs, encoder)
        inside += time.perf_counter() - begun

    with ray_cluster(num_cpus=workers):
        # Work for some seconds: a worker that was asked for last is then ready too.
        prepare(_warm(path, 80_000), using, run_on_ray, part_bytes=1 << 20)
        start = time.perf_counter()
        prepare(path, using, run)
        wall = time.perf_counter() - start
    return wall, wall - inside


def apart(path: Path, ready: threading.Barrier) -> float:
    """Wall seconds of this process, from when all others are ready too."""
    using = encoder()
    os.environ["DIDACT_CACHE"] = str(path.parent / "cache")
    prepare(_warm(path), using)
    ready.wait()
    start = time.perf_counter()
    prepare(path, using)
    return time.perf_counter() - start


def scaling(folder: Path, rows: int) -> None:
    """Print one and two Ray workers, and one and two processes that share nothing."""
    path = folder / "rows.jsonl"
    write_rows(path, rows)
    (one, serial), (two, _) = (in_a_process(on_ray, path, workers) for workers in (1, 2))
    print(
        f"{rows:>9,} rows on Ray: 1 worker {rows / one:,.0f} rows/s, 2 workers {rows / two:,.0f}: {one / two:.2f} x "
        f"({serial:.2f} of {one:.1f} s are outside the parts)",
        flush=True,
    )
    places = [folder / name / "rows.jsonl" for name in ("a", "b")]
    for place in places:
        place.parent.mkdir()
        write_rows(place, rows // 8)
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as shared:
        alone, both = (_at_once(places[:count], shared.Barrier(count)) for count in (1, 2))
    print(f"{'':>9}  two processes that share nothing: {2 * alone / both:.2f} x", flush=True)


def _at_once(places: Sequence[Path], ready: Any) -> float:
    with ProcessPoolExecutor(len(places), multiprocessing.get_context("spawn")) as pool:
        return max(pool.map(apart, places, [ready] * len(places)))


def measure(work: Callable[[Path, Encoder], Any], path: Path) -> Measured:
    """Do work on a few rows, so that libraries are loaded, then on all."""
    using = encoder()
    work(_warm(path), using)
    begun, start = time.process_time(), time.perf_counter()
    value = work(path, using)
    cpu = value if isinstance(value, float) else time.process_time() - begun
    return Measured(cpu, time.perf_counter() - start, _peak())


def in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a fresh process, so that peaks do not add up."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def compare(path: Path, rows: int) -> None:
    """Print preparation beside the bare tokenizer and `datasets.map`."""
    own, alone, plain = (in_a_process(measure, work, path) for work in (prepare, bare, mapped))
    print(
        f"{rows:>9,} rows: {rows / own.cpu:,.0f} rows/s of CPU, {alone.cpu / own.cpu:.0%} of the bare tokenizer "
        f"({rows / alone.cpu:,.0f}), {plain.cpu / own.cpu:.2f} x datasets.map ({rows / plain.cpu:,.0f}); "
        f"peak {own.peak:,.0f} MiB, datasets.map {plain.peak:,.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--ray", type=int, nargs="?", const=1_000_000, help="rows for 1 and 2 Ray workers")
    parser.add_argument("--memory-only", action="store_true", help="rate and peak memory of preparation, nothing else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="didact-prepare-") as folder:
        path = Path(folder) / "rows.jsonl"
        os.environ["DIDACT_CACHE"] = str(path.parent / "cache")
        in_a_process(_first)
        for rows in arguments.rows:
            write_rows(path, rows)
            if arguments.memory_only:
                own = in_a_process(measure, prepare, path)
                print(f"{rows:>9,} rows: {rows / own.cpu:,.0f} rows/s of CPU, peak {own.peak:,.0f} MiB", flush=True)
            else:
                compare(path, rows)
        if arguments.ray:
            scaling(Path(folder), arguments.ray)


def _first() -> None:
    encoder()  # unpacks the bundled base, which the other processes find


def _warm(path: Path, rows: int = 200) -> Path:
    warm = path.with_name("warm.jsonl")
    write_rows(warm, rows)
    return warm


def _peak() -> float:
    # ru_maxrss would begin with that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    main()
