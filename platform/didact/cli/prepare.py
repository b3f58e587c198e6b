"""The verbs of `didact data` that fill and empty the cache.

didact data prepare recipe.yaml -> cache -> cache --prune --older-than 30d
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from didact import env
from didact.cli.data import Overrides, Recipe
from didact.display import terminal
from didact.errors import SpecError
from didact.spec import FinetuneSpec, load_spec, with_absolute_paths

if TYPE_CHECKING:
    from didact.cache.pruning import CachedEntry
    from didact.preparation import Encoder, PartDone, PartJob, Runner

preparing = typer.Typer()

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@preparing.command("prepare")
def data_prepare(
    recipe: Recipe,
    overrides: Overrides = None,
    ray: Annotated[bool, typer.Option("--ray", help="Over the cluster, or over this machine's CPUs")] = False,
) -> None:
    """Convert and tokenize a recipe's data, so that training finds it ready. Names the files of rejected rows."""
    spec = with_absolute_paths(load_spec(FinetuneSpec, recipe, overrides or []))
    from didact.evaluation import task_texts
    from didact.preparation import prepare_data, run_here, score_here

    runners: AbstractContextManager[Runner] = nullcontext(run_here)
    score = score_here
    if ray:
        from didact.cluster import ray_runner, score_on_ray

        runners, score = ray_runner(), score_on_ray
    with runners as run:
        watched = _watched(run, terminal(stderr=True))
        prepared = prepare_data(spec, env.cache_dir() / "quarantine" / spec.name, watched, task_texts, score)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("Source")
    for heading in ("Rows", "Rejected", "Dropped", "Samples", "Tokens"):
        table.add_column(heading, justify="right")
    for dataset, tokens in zip(prepared.datasets, prepared.mixture.tables, strict=True):
        numbers = (dataset.rows_read, dataset.num_rejected, sum(dataset.dropped.values()), len(tokens))
        table.add_row(dataset.name, *(f"{number:,}" for number in (*numbers, tokens.stats.tokens)))
    terminal().print(table)
    for dataset in prepared.datasets:
        if dataset.quarantine is not None:
            print(f"rejected rows of {dataset.name}: {dataset.quarantine}")


@preparing.command("cache")
def data_cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what was not used for as long as --older-than")
    ] = False,
    older_than: Annotated[str, typer.Option(help="Such as 12h, 30d or 8w")] = "30d",
    everything: Annotated[bool, typer.Option("--all", help="With --prune: remove everything not in use")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go")] = False,
) -> None:
    """List all that lies in the cache, or remove prepared data not used for long. What is in use stays."""
    from didact.cache.pruning import is_older, list_cache, other_sizes
    from didact.cache.pruning import prune as remove

    age, found = _age(older_than), list_cache(env.cache_dir())
    if not prune:
        terminal().print(_table(found))
        prepared, others = sum(each.size for each in found), other_sizes(env.cache_dir())
        print(f"{len(found)} entries of prepared data, {_size(prepared)}")
        for name, size in others.items():
            print(f"{name}: {_size(size)}, not pruned")
        print(f"{_size(prepared + sum(others.values()))} in {env.cache_dir()}")
        return
    freed = 0
    for each in found:
        if not everything and not is_older(each, age):
            continue
        gone = dry_run or remove(each)
        freed += each.size if gone else 0
        verb = "in use, kept" if not gone else "would remove" if dry_run else "removed"
        print(f"{verb} {each.kind} {each.source or '(unfinished)'} {each.entry.address[:12]} {_size(each.size)}")
    print(f"{'would free' if dry_run else 'freed'} {_size(freed)}")


def _watched(run: "Runner", console: Console) -> "Runner":
    """The same runner, with a line that says how far and how fast it is."""

    def watched(jobs: "Sequence[PartJob]", encoder: "Encoder") -> "Iterator[PartDone]":
        started, rows, rejected, tokens = time.perf_counter(), 0, 0, 0
        with console.status(f"preparing {len(jobs)} parts") as status:
            for number, done in enumerate(run(jobs, encoder), start=1):
                rows, rejected, tokens = rows + done.rows, rejected + done.rejected, tokens + done.tokens
                seconds = time.perf_counter() - started
                line = (
                    f"{number} of {len(jobs)} parts, {rows:,} rows ({rows / seconds:,.0f}/s), "
                    f"{tokens:,} tokens ({tokens / seconds:,.0f}/s), {rejected:,} rejected"
                )
                status.update(line)
                yield done
        if jobs:
            console.print(line, highlight=False)

    return watched


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([hdw])", text)
    if match is None:
        raise SpecError(f"--older-than {text} is not a number with h, d or w, such as 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _table(found: "Sequence[CachedEntry]") -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("Kind", "Source"):
        table.add_column(heading)
    for heading in ("Rows", "Tokens", "Size"):
        table.add_column(heading, justify="right")
    for heading in ("Last used", "Address"):
        table.add_column(heading, no_wrap=True)
    for each in found:
        tokens = f"{each.tokens:,}" if each.tokens else ""
        name = each.source if each.complete else "(unfinished)"
        used = f"{each.last_used:%Y-%m-%d %H:%M}"
        table.add_row(each.kind, name, f"{each.rows:,}", tokens, _size(each.size), used, each.entry.address[:12])
    return table


def _size(num_bytes: int) -> str:
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if num_bytes >= 1000**power:
            return f"{num_bytes / 1000**power:.1f} {unit}"
    return f"{num_bytes} B"
