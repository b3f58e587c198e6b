"""The verbs for finished searches.

didact tune -> didact sweep export NAME -> recipe.yaml -> didact train
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from didact import env

sweep = typer.Typer(no_args_is_help=True, help="What searches found: the winning recipe.")


@sweep.callback()
def _group() -> None:
    """Keeps `export` a verb of its own while it is the only one."""


@sweep.command("export")
def export(
    name: Annotated[str, typer.Argument(help="Name of the sweep")],
    output: Annotated[Path | None, typer.Argument(help="File to write; default: NAME-best.yaml")] = None,
    trial: Annotated[str | None, typer.Option(help="Another trial than the best")] = None,
) -> None:
    """Write the recipe of the best trial, ready for `didact train`."""
    from didact.tuning import export_recipe

    file = output or Path(f"{name}-best.yaml")
    spec = export_recipe(name, env.runs_dir(), file, trial)
    Console().print(f"{file}: recipe {spec.name}, as `didact train {file}` takes it", highlight=False, soft_wrap=True)
