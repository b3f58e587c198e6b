"""Preparation beside the bare tokenizer and beside plain `datasets.map`, on synthetic rows of JSON lines.

    python benchmarks/prepare.py --rows 10000 100000 1000000

Prints, for each number of rows: rate and peak memory of `didact data prepare` in a process of its own, with one and two
Ray workers when `--ray` is given, the rate of the bare fast tokenizer on the same rendered text, and of `datasets.map`
doing the same job. Rates of single processes are per CPU second; those on Ray are wall time without Ray's start.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from didact.datasets import load_dataset
from didact.datasets.opening import open_source
from didact.models import load_tokenizer
from didact.spec import ModelSpec, SourceSpec, TokensSpec
from didact.tokens import Encoder, Runner, TemplateContract, prepare_source, run_here, tokenize

_TEXT = "the a of to water light number count answer because river seven green write explain which between"
WORDS = _TEXT.split()


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


def prepare(path: Path, run: Runner = run_here) -> None:
    """JSON lines in, token shards out."""
    cache = path.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    source, using = SourceSpec(name="rows", path=str(path)), encoder()
    opened = open_source(source)
    prepare_source(opened, source, 0, using, cache, run)
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None, opened=opened)
    tokenize(dataset, using, cache)


def bare(path: Path) -> float:
    """CPU seconds of the tokenizer alone on the rendered texts, a thousand at a time."""
    using, seconds = encoder(), 0.0
    source = SourceSpec(name="rows", path=str(path))
    rows = load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None).train
    for start in range(0, len(rows), 1000):
        texts = [using.contract.render(using.tokenizer, row.messages, False) for row in rows[start : start + 1000]]
        begun = time.process_time()
        using.tokenizer(texts)
        seconds += time.process_time() - begun
    return seconds


def mapped(path: Path) -> None:
    """The same job with `datasets.map`: read, render, tokenize, mask, store."""
    import datasets

    using = encoder()

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


def measure(work: Callable[[Path], Any], path: Path, results: Any) -> None:
    """CPU seconds and peak memory of `work`, after the tokenizer and the libraries have been loaded."""
    os.environ["DIDACT_CACHE"] = str(path.parent / "cache")
    warm = path.with_name("warm.jsonl")
    write_rows(warm, 200)
    work(warm)
    begun, start = time.process_time(), time.perf_counter()
    value = work(path)
    seconds = value if isinstance(value, float) else time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results.put((seconds, time.perf_counter() - start, peak))


def in_a_process(work: Callable[[Path], Any], path: Path) -> tuple[float, float, float]:
    """Measure in a fresh process, so that peaks do not add up."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(work, path, results))
    process.start()
    found: tuple[float, float, float] = results.get()
    process.join()
    return found


def on_ray(path: Path, workers: int) -> float:
    """Wall seconds on a local Ray of so many CPUs, without its start."""
    from didact.cluster import ray_cluster, run_on_ray

    os.environ["DIDACT_CACHE"] = str(path.parent / "cache")
    with ray_cluster(num_cpus=workers):
        warm = path.with_name("warm.jsonl")
        write_rows(warm, 200)
        prepare(warm, run_on_ray)
        start = time.perf_counter()
        prepare(path, run_on_ray)
        return time.perf_counter() - start


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--ray", action="store_true", help="also with 1 and 2 Ray workers")
    arguments = parser.parse_args()
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="didact-prepare-") as folder:
            path = Path(folder) / "rows.jsonl"
            write_rows(path, rows)
            own, _, peak = in_a_process(prepare, path)
            alone, _, _ = in_a_process(bare, path)
            plain, _, plain_peak = in_a_process(mapped, path)
            print(f"{rows:>9,} rows: {rows / own:,.0f} rows/s of CPU, {alone / own:.0%} of the bare tokenizer "
                  f"({rows / alone:,.0f}), {plain / own:.2f} x datasets.map ({rows / plain:,.0f}); "
                  f"peak {peak:,.0f} MiB, datasets.map {plain_peak:,.0f} MiB", flush=True)  # fmt: skip
            if arguments.ray:
                one, two = (on_ray(path, workers) for workers in (1, 2))
                print(
                    f"{'':>9}  Ray: 1 worker {rows / one:,.0f} rows/s, 2 workers {rows / two:,.0f} ({one / two:.2f} x)"
                )


if __name__ == "__main__":
    main()
