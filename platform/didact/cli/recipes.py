"""The verbs for recipes that come with didact: see what there is, begin with one.

didact recipes -> recipes NAME -> init NAME -> plan NAME.yaml
"""

import json
import re
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from didact.cli.data import Overrides
from didact.display import terminal
from didact.errors import SpecError
from didact.files import write_text
from didact.spec import FinetuneSpec, validate
from didact.spec.load import parse_mapping, parse_value
from didact.spec.rewrite import with_overrides
from didact.spec.shipped import ShippedRecipe, find_recipe, shipped_recipes


def recipes(
    name: Annotated[str, typer.Argument(help="Print this one; left out: list all")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with the text of each")] = False,
) -> None:
    """List the recipes that come with didact by what they run on, or print one."""
    shown = [find_recipe(name)] if name else shipped_recipes()
    if as_json:
        print(json.dumps([asdict(each) for each in shown], indent=2, ensure_ascii=False))
    elif name:
        print(shown[0].text, end="")
    else:
        terminal().print(_table(shown))
        terminal().print("didact recipes NAME prints one; didact init NAME writes one to start from", highlight=False)


def init(
    name: Annotated[str, typer.Argument(help="A recipe, as in `didact recipes`")],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; default: NAME.yaml")] = None,
) -> None:
    """Write a recipe to start from, with changes made and comments kept; its run is named like the file."""
    recipe = find_recipe(name)
    file = output or Path(f"{recipe.name}.yaml")
    text = with_overrides(recipe.text, [f"name={_run_name(file)}", *(overrides or [])], recipe.name)
    validate(FinetuneSpec, parse_mapping(text, recipe.name), f"recipe {recipe.name} with these changes")
    if file.exists():
        raise SpecError(f"{file} exists; name another file with -o, or remove it first")
    write_text(file, text)
    before = re.findall(r"^# First: (.*)$", recipe.text, re.MULTILINE)
    commands = [*before, f"didact plan {file}", f"didact train {file}"]
    terminal().print(
        "\n  ".join([f"wrote {file}: {recipe.purpose}\nruns on {recipe.machine}\nnext:", *commands]),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _run_name(file: Path) -> str:
    """The file's name without its ending, in the letters that names of runs may have."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", file.stem).lstrip("_.-")
    return name if name and parse_value(name) == name else f"run_{name}"  # 12.yaml would name a number


def _table(shown: list[ShippedRecipe]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for number, (machine, each_there) in enumerate(groupby(shown, key=lambda each: each.machine)):
        if number:
            table.add_row()
        table.add_row(f"[bold]{machine}[/]")
        for each in each_there:
            table.add_row(f"  {each.name}", each.purpose)
    return table
