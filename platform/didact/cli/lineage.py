"""The verbs about where a result comes from: its lineage, and doing it again."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from didact.display import visible


def lineage(
    asked: Annotated[
        str,
        typer.Argument(
            help="Back: NAME, NAME@ALIAS, NAME:VERSION, a run or adapter folder. Forward: a data file, card:NAME, "
            "licence:TEXT, sha256:DIGEST or a source as recipes write it"
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Nodes, arrows and what is affected as JSON")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw it into this file, .svg or .png")] = None,
) -> None:
    """Show what a version or run was made of, or which runs and versions were trained on some data."""
    from didact.lineage import trace

    found = trace(asked)
    if picture is not None:
        from didact.lineage.picture import save_picture

        save_picture(found.graph, picture)
    if as_json:
        print(json.dumps(found.to_plain(), indent=2, ensure_ascii=False))
        return
    Console().print(found, highlight=False)
    if picture is not None:
        Console().print(f"drawn into {visible(str(picture))}", highlight=False, soft_wrap=True)


def reproduce(
    asked: Annotated[str, typer.Argument(help="A run folder or the name of a run, or NAME, NAME@ALIAS, NAME:VERSION")],
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing or different")] = False,
    name: Annotated[str | None, typer.Option(help="Of the new run; default: the old one's with -again")] = None,
) -> None:
    """Do a run again from what was recorded of it and compare the adapters; ends with 1 where they are not equal."""
    from didact.lineage.reproduction import plan_reproduction

    plan = plan_reproduction(asked, name=name)
    Console().print(plan, highlight=False)
    plan.check()
    if check:
        return
    from didact.cluster.reproduce import reproduce as do_again

    comparison = do_again(plan)
    Console().print(comparison, highlight=False)
    if not comparison.equal:
        raise typer.Exit(1)
