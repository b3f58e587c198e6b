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
