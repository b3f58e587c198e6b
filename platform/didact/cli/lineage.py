"""The verbs about where a result comes from: its lineage, and doing it again."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from didact.display import terminal, visible
from didact.errors import RegistryError


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
    terminal().print(found, highlight=False)
    if picture is not None:
        terminal().print(f"drawn into {visible(str(picture))}", highlight=False, soft_wrap=True)


def reproduce(
    asked: Annotated[str, typer.Argument(help="A run folder or the name of a run, or NAME, NAME@ALIAS, NAME:VERSION")],
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing or different")] = False,
    name: Annotated[str | None, typer.Option(help="Of the new run; default: the old one's with -again")] = None,
) -> None:
    """Do a run again from what was recorded of it and compare the adapters; ends with 1 where they are not equal."""
    from didact.lineage.reproduction import plan_reproduction

    plan = plan_reproduction(asked, name=name)
    terminal().print(plan, highlight=False)
    plan.check()
    if check:
        return
    from didact.cluster.reproduce import reproduce as do_again

    comparison = do_again(plan)
    terminal().print(comparison, highlight=False)
    if not comparison.equal:
        raise typer.Exit(1)


def push(
    asked: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS, NAME:VERSION or a run folder")],
    repo: Annotated[str, typer.Argument(help="OWNER/REPO on the Hugging Face hub")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may read it; asks first")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be uploaded")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """Upload adapter, model card and proof (report, recipe, lineage, verdict) to a hub; private by default."""
    from didact.lineage.push import plan_push
    from didact.lineage.push import push as upload

    plan = plan_push(asked, repo, public=public)
    terminal().print(plan, highlight=False)
    if dry_run:
        return
    if public and not yes:
        if not sys.stdin.isatty():
            raise RegistryError(
                f"{repo} would be public, and nobody is at a terminal to say yes; add --yes, or leave --public out"
            )
        typer.confirm(f"Everybody will be able to read {plan.bundle.name} at {repo}. Go on?", abort=True)
    terminal().print(f"uploaded: {upload(plan)}", highlight=False, soft_wrap=True)
