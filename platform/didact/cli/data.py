"""The verbs of `didact data`: choose data, look at it, bring your own.

didact data list -> show NAME -> `path: card:NAME` in a recipe -> preview
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from didact.display import terminal, visible
from didact.errors import DataError, ModelError
from didact.spec import FinetuneSpec, ModelSpec, load_spec
from didact.spec.load import parse_value
from didact.spec.model import BUNDLED_BASE

if TYPE_CHECKING:
    from didact.datasets import Conversation, RowSample, Samples
    from didact.datasets.catalog import Card
    from didact.tokens import TokenCount

    _Counter = Callable[[Sequence[Conversation]], list[TokenCount | None]]

data = typer.Typer(no_args_is_help=True, help="Choose data, look at it, bring your own.")

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to fields of the file; of a recipe such as training.steps=100")
]
Recipe = Annotated[Path, typer.Argument(help="A recipe, such as jobs/recipes/demo.yaml")]
_SHOWN_CHARACTERS = 400


@data.command("list")
def data_list(
    language: Annotated[str | None, typer.Option(help="Such as en or zh")] = None,
    task: Annotated[str | None, typer.Option(help="Such as math, code, dialogue, table-qa")] = None,
    generation: Annotated[
        str | None, typer.Option(help="Who wrote the answers: human, self-instruct, mixed, collection")
    ] = None,
    reasoning: Annotated[bool | None, typer.Option(help="With or without rationales")] = None,
    commercial: Annotated[bool | None, typer.Option(help="Known to allow, or to forbid, commercial use")] = None,
    licence: Annotated[str | None, typer.Option(help="Part of the licence's name, such as CC-BY")] = None,
    min_rows: Annotated[int | None, typer.Option(min=0)] = None,
    max_rows: Annotated[int | None, typer.Option(min=0)] = None,
    group: Annotated[str | None, typer.Option(help="A named set of datasets, such as chain-of-thought")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Whole cards as JSON")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="A table for a page")] = False,
) -> None:
    """List the datasets of the catalog that fit every condition."""
    from didact.datasets.catalog.listing import find_cards
    from didact.datasets.catalog.table import markdown_table

    cards = find_cards(
        group=group,
        language=language,
        task=task,
        generation=generation,
        reasoning=reasoning,
        commercial=commercial,
        licence=licence,
        max_rows=max_rows,
        min_rows=min_rows,
    )
    if as_json:
        print(json.dumps([card.model_dump(mode="json", by_alias=True) for card in cards], indent=2, ensure_ascii=False))
    elif as_markdown:
        print(markdown_table(cards), end="")
    else:
        terminal().print(cards)
        terminal().print(
            f"{len(cards)} of {cards.num_known} datasets; didact data show NAME tells more", highlight=False
        )


@data.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A dataset, as in `didact data list`")],
    root: Annotated[Path | None, typer.Option(help="Folder or file with its raw files on this machine")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The card as JSON, without samples")] = False,
    base: Annotated[
        str | None,
        typer.Option(help="Whose tokens are counted, as `model.base` of a recipe; default: the bundled base"),
    ] = None,
) -> None:
    """Show a dataset's card, three conversations, and how many tokens they and the whole of its files have."""
    from didact.datasets import card_samples, random_rows
    from didact.datasets.catalog import find_card

    card = find_card(name)
    if as_json:
        print(json.dumps(card.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False))
        return
    terminal().print(_facts(card))
    samples = card_samples(card, root)
    if samples.conversations:
        _print_samples(card, samples, base, random_rows(card, root))


@data.command("add")
def data_add(
    place: Annotated[str, typer.Argument(help="A file, folder or glob, or a Hugging Face dataset as OWNER/NAME")],
    name: Annotated[str, typer.Option(help="Its name in the catalog: lower-case letters, digits, - and .")],
    title: Annotated[str, typer.Option(help="Default: the name")] = "",
    good_for: Annotated[str, typer.Option(help="When to choose it, in one sentence")] = "Data of your own.",
    language: Annotated[list[str] | None, typer.Option(help="Such as en; may be given again")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Such as math; may be given again")] = None,
    licence: Annotated[str, typer.Option(help="SPDX id or text")] = "unknown",
    commercial: Annotated[bool | None, typer.Option(help="Whether commercial use is allowed; default: unknown")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="ROLE=FIELD where names differ, such as output=reply; may be given again")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the reader, such as encoding=gb18030; may be given again")
    ] = None,
) -> None:
    """Make a card for data of your own, after recognising its form and checking its first 1,000 rows."""
    from didact.datasets import add_card

    added = add_card(
        place,
        name,
        title=title,
        good_for=good_for,
        languages=tuple(language or ["und"]),
        tasks=tuple(task or ["general"]),
        licence=licence,
        commercial=commercial,
        fields=dict(_pair("--field", each, "ROLE=FIELD, such as output=reply") for each in field or []),
        options={
            key: parse_value(value)
            for key, value in (_pair("--option", each, "KEY=VALUE, such as encoding=gb18030") for each in option or [])
        },
    )
    checked = added.checked
    terminal().print(
        f"added {name}: form {', '.join(checked.forms)}; {len(checked.accepted):,} of "
        f"{len(checked.accepted) + len(checked.rejects):,} rows checked are good\n"
        + "".join(f"{line}\n" for line in checked.noted.in_words())
        + f"card: {added.file}\nin a recipe: path: card:{name}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@data.command("preview")
def data_preview(
    recipe: Recipe,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=1, help="Samples per source")] = 2,
) -> None:
    """Show samples of a recipe as the model sees them, learned text in colour, or marked where there is none."""
    spec = load_spec(FinetuneSpec, recipe, overrides or [])
    from didact.evaluation import task_texts
    from didact.preparation import prepare_data
    from didact.tokens import marked, preview

    prepared, console = prepare_data(spec, task_texts=task_texts), terminal()
    for table in prepared.mixture.tables:
        samples = [table[index] for index in range(min(rows, len(table)))]
        head = f"{table.name}: {len(table):,} samples, {table.stats.supervised / table.stats.tokens:.0%} learned"
        if console.color_system is not None:
            console.rule(Text(head))
            for sample in samples:
                console.print(preview(sample, prepared.tokenizer), soft_wrap=True)
            continue
        (begin, end), texts = marked(samples, prepared.tokenizer)
        print(f"{head}; learned text stands between {begin} and {end}\n", *texts, sep="\n", end="\n\n")


def _pair(option: str, text: str, form: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key or not value:
        raise DataError(f"{option} {text} is not of the form {form}")
    return key, value


def _facts(card: "Card") -> Table:
    from didact.datasets.catalog.table import permission, rows_in_words

    facts = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    on_hub = f"hf:{card.source.hub} {' '.join(card.source.files)}".strip() if card.source.hub else "not on the hub"
    roles = ", ".join(f"{role} <- {_rule(rule)}" for role, rule in card.rows.mapping.fields.items())
    lines = {
        "name": f"{card.name} ({card.title})",
        "good for": card.good_for,
        "languages": ", ".join(card.languages),
        "tasks": ", ".join(card.tasks),
        "answers by": card.generation + (", with reasoning" if card.reasoning else ""),
        "rows": f"{card.num_rows:,}" if card.num_rows else "unknown",
        "licence": f"{card.licence}; commercial use: {permission(card.commercial)}",
        "terms": card.licence_note,
        "home": card.source.home,
        "read from": card.source.path or on_hub + (" (in instruction form)" if card.source.converted else ""),
        "raw form": f"{card.rows.container}; format {card.rows.format}",
        "fields": roles,
        "rows read": rows_in_words(card),
        "issues": "\n".join(card.quality),
        "overlaps": ", ".join(card.overlaps),
        "in a recipe": f"path: card:{card.name}",
    }
    for title, text in lines.items():
        if text:
            facts.add_row(title, Text(visible(text)))
    return facts


def _rule(rule: object) -> str:
    from didact.datasets.forms.field_mapping import ValueRule

    if isinstance(rule, ValueRule):
        return f"{rule.source}, replaced"
    return " + ".join(rule) if isinstance(rule, tuple) else str(rule)


def _print_samples(card: "Card", samples: "Samples", base: str | None, rows: "RowSample | None") -> None:
    console = terminal()
    count_of = _counter(base)
    counts = count_of(samples.conversations) if count_of else [None] * len(samples.conversations)
    if samples.made_up:
        place = f"{card.source.home}" + (f" and hf:{card.source.hub}" if card.source.hub else "")
        console.print(
            f"\nIts files are not on this machine. They come from {place}; give their folder as --root to see them.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    for number, (conversation, count) in enumerate(zip(samples.conversations, counts, strict=True), 1):
        size = f": {count.tokens:,} tokens, {count.learned:,} learned" if count else ""
        console.rule(f"{'made-up example' if samples.made_up else 'sample'} {number}{size}")
        for message in conversation.messages:
            text = visible(_cut(message.written))
            console.print(Text.assemble((f"{message.role}:", "bold"), " ", text), soft_wrap=True)
    if rows is not None and count_of is not None:
        _print_estimate(rows, count_of, base or BUNDLED_BASE)


def _counter(base: str | None) -> "_Counter | None":
    """Counts the tokens of a base; None where nobody named one and the bundled one is not installed."""
    from didact.models import load_tokenizer
    from didact.tokens import count_tokens

    try:
        tokenizer = load_tokenizer(ModelSpec() if base is None else ModelSpec(base=base))
        return lambda conversations: count_tokens(conversations, tokenizer)
    except ModelError as error:
        if base is not None:
            raise
        terminal().print(f"\nTokens are not counted: {error}; or name a base as --base", highlight=False, markup=False)
        return None


def _print_estimate(rows: "RowSample", count_of: "_Counter", base: str) -> None:
    from didact.tokens import estimate_tokens

    sampled = [*count_of(rows.conversations), *[None] * rows.num_refused]
    whole = estimate_tokens(sampled, rows.num_rows)
    exact = len(sampled) == rows.num_rows
    how = "all counted" if exact else f"± {whole.error:.0%}, by {len(sampled):,} rows taken at random"
    terminal().print(
        f"\n{rows.num_rows:,} rows, {'' if exact else 'about '}{whole.tokens:,} tokens, {whole.learned:,} of them "
        f"learned ({how}; tokens of {base})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _cut(text: str) -> str:
    """A long text without its middle: what a prompt asks often stands at its end."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[: _SHOWN_CHARACTERS // 2]} [...] {text[-_SHOWN_CHARACTERS // 2 :]}"
