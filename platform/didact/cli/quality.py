"""The verbs of `didact data` that judge: what is in it, what is twice, all of it on one page.

didact data stats alpaca -> overlap alpaca alpaca-gpt4 -> report recipe.yaml
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from didact.cli.data import Overrides, Recipe
from didact.display import terminal
from didact.errors import DataError
from didact.spec import FinetuneSpec, SourceSpec, load_spec

if TYPE_CHECKING:
    from didact.datasets import Dataset
    from didact.datasets.quality import SourceStatistics
    from didact.preparation import SourceFacts

quality = typer.Typer()

What = Annotated[list[str], typer.Argument(help="A recipe, or datasets as in `didact data list`")]
Roots = Annotated[
    list[Path] | None,
    typer.Option("--root", help="Folder or file with a dataset's raw files on this machine; once for each dataset"),
]
AsJson = Annotated[bool, typer.Option("--json", help="All figures as JSON")]
_SHOWN_LANGUAGES = 3
_LEAST_SHOWN = 0.01


@quality.command("overlap")
def data_overlap(
    what: What,
    root: Roots = None,
    near: Annotated[bool, typer.Option("--near/--exact", help="Also count rows that differ in a few words")] = True,
    threshold: Annotated[float, typer.Option(min=0.1, max=1.0, help="Jaccard similarity of near duplicates")] = 0.8,
    prompts: Annotated[bool, typer.Option("--prompts", help="Compare what is asked, not what is answered")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also as a picture: a .svg or .png file")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how much of each source is in each other."""
    from didact.datasets import AllRows
    from didact.datasets.quality import measure_overlap

    if picture is not None and picture.suffix not in (".svg", ".png"):
        raise DataError(f"--picture {picture}: expected a name that ends in .svg or .png")
    datasets = _load(*_sources(what, root))
    overlap = measure_overlap(
        [dataset.name for dataset in datasets],
        [AllRows(dataset) for dataset in datasets],
        threshold=threshold if near else None,
        compare="prompt" if prompts else "conversation",
    )
    if picture is not None:
        from didact.datasets.quality.pictures import write_picture

        write_picture(overlap, picture)
    if as_json:
        print(json.dumps(overlap.as_json(), indent=2, ensure_ascii=False))
    else:
        terminal().print(overlap.table())
        terminal().print(overlap.caption, highlight=False)


@quality.command("stats")
def data_stats(what: What, root: Roots = None, as_json: AsJson = False) -> None:
    """Show lengths and languages of each source; for a recipe also what becomes of its rows as tokens."""
    from didact.datasets import AllRows
    from didact.datasets.quality import source_statistics

    sources, spec = _sources(what, root)
    facts: Sequence[SourceFacts | None] = [None] * len(sources)
    if spec is None:
        datasets = _load(sources, spec)
    else:
        from didact.preparation import DataFacts, read_sources
        from didact.reports import prepare_unrefused

        datasets = list(read_sources(spec))
        facts = DataFacts.of(spec, prepare_unrefused(spec)).sources
    statistics = [source_statistics(dataset.name, AllRows(dataset)) for dataset in datasets]
    if as_json:
        figures = [
            {**each.as_json(), "rows_rejected": dataset.rows_rejected, "prepared": known and asdict(known)}
            for each, dataset, known in zip(statistics, datasets, facts, strict=True)
        ]
        print(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    console = terminal(highlight=False)
    console.print(_rows_table(statistics, datasets))
    console.print("characters, words: what half of the rows / 95% of them have at most", style="dim")
    if spec is not None:
        console.print()
        console.print(_tokens_table([known for known in facts if known]))
        console.print(
            "cut: longer than tokens.max_length; left out: rows that cannot or must not be learned from", style="dim"
        )


@quality.command("report")
def data_report(
    recipe: Recipe,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write")] = Path("report.html"),
) -> None:
    """Write one HTML page about a recipe's data: sizes, mixture, lengths, languages, overlaps, what is wrong."""
    spec = load_spec(FinetuneSpec, recipe, overrides or [])
    from didact.files import write_text
    from didact.reports import gather_report, render_report

    write_text(output, render_report(gather_report(spec)))
    terminal().print(f"written: {output}", highlight=False, markup=False, soft_wrap=True)


def _rows_table(statistics: "Sequence[SourceStatistics]", datasets: "Sequence[Dataset]") -> Table:
    table = _table("source", "rows", "bad", "characters", "words", "turns", "languages")
    for each, dataset in zip(statistics, datasets, strict=True):
        characters, words = each.characters.quantiles, each.words.quantiles
        languages = list(each.languages.items())[:_SHOWN_LANGUAGES]
        table.add_row(
            *(escape(each.name), f"{each.num_rows:,}", f"{dataset.rows_rejected:,}"),
            f"{characters['p50']:,.0f} / {characters['p95']:,.0f}",
            f"{words['p50']:,.0f} / {words['p95']:,.0f}",
            f"{each.turns.mean:.1f}",
            " ".join(f"{language} {share:.0%}" for language, share in languages if share >= _LEAST_SHOWN),
        )
    return table


def _tokens_table(facts: "Sequence[SourceFacts]") -> Table:
    table = _table("source", "samples", "tokens", "trained", "cut", "left out")
    for each in facts:
        rejected = {**each.rows_dropped, **each.samples_rejected}
        table.add_row(
            *(escape(each.name), f"{each.samples_usable:,}", f"{each.tokens:,}"),
            *(f"{each.supervised_share:.0%}", f"{each.samples_truncated:,}"),
            ", ".join(f"{reason} {count:,}" for reason, count in rejected.items()) or "-",
        )
    return table


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right" if name not in ("languages", "left out") else "left")
    return table


def _load(sources: Sequence[SourceSpec], spec: FinetuneSpec | None) -> "list[Dataset]":
    """Read sources to look at them: bad rows are no reason to stop where no recipe says how many may be bad."""
    from didact.datasets import load_dataset

    seed, share = (spec.data.seed, spec.data.max_bad_rows_share) if spec else (0, 1.0)
    return [load_dataset(source, seed=seed, max_bad_rows_share=share, quarantine_dir=None) for source in sources]


def _sources(what: Sequence[str], roots: Sequence[Path] | None) -> tuple[tuple[SourceSpec, ...], FinetuneSpec | None]:
    """The sources of a recipe, with it, or one for each dataset named."""
    if what[0].endswith((".yaml", ".yml")):
        if len(what) > 1 or roots:
            raise DataError(f"{what[0]} is a recipe, which says by itself what is read; leave out the rest")
        spec = load_spec(FinetuneSpec, what[0])
        return spec.data.sources, spec
    if roots and len(roots) != len(what):
        raise DataError(f"{len(roots)} times --root for {len(what)} datasets; give one for each, in their order")
    options = [{"root": str(root)} for root in roots] if roots else [{} for _ in what]
    return (
        tuple(
            SourceSpec(name=name, path=f"card:{name}", options=given) for name, given in zip(what, options, strict=True)
        ),
        None,
    )
