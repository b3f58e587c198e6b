"""`didact sweep`: what searches found.

didact tune -> didact sweep export NAME -> recipe.yaml -> didact train
"""

from pathlib import Path
from typing import Annotated

import typer

from didact import env
from didact.display import terminal

sweep = typer.Typer(no_args_is_help=True, help="What searches found: a page, the winning recipe")


@sweep.command("export")
def export(
    name: Annotated[str, typer.Argument(help="Name of the sweep")],
    output: Annotated[Path | None, typer.Argument(help="File to write; default: NAME-best.yaml")] = None,
    trial: Annotated[
        str | None, typer.Option(help="Another trial than the best, or what it was compared with, as uniform")
    ] = None,
) -> None:
    """Write the recipe of the best trial, ready for `didact train`."""
    from didact.tuning import export_recipe

    file = output or Path(f"{name}-best.yaml")
    spec = export_recipe(name, env.runs_dir(), file, trial)
    terminal().print(f"{file}: recipe {spec.name}, as `didact train {file}` takes it", highlight=False, soft_wrap=True)


@sweep.command("report")
def report(
    name: Annotated[str, typer.Argument(help="Name of the sweep, or its folder")],
    page: Annotated[Path | None, typer.Option(help="HTML file to write; default: results.html of the sweep")] = None,
) -> None:
    """Show a sweep's trials and write its page: what moved the metric, mixtures, curves, every trial."""
    from didact.files import write_text
    from didact.runs import folder_named
    from didact.tuning import read_results
    from didact.tuning.page import render_sweep, sweep_facts

    folder = folder_named(name)
    result, file = read_results(folder), page or folder / "results.html"
    console = terminal()
    console.print(result)
    write_text(file, render_sweep(sweep_facts(result)))
    console.print(f"written: {file}", highlight=False, markup=False, soft_wrap=True)
