"""The recipes that come with the package: what each is for, and what it runs on.

In the repository they lie in `jobs/recipes/`, to which `didact/recipes` points; an installed package holds the files.
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from didact.errors import SpecError

MACHINES = ("laptop", "one A100", "8 A100s", "spot cluster")
"""What a recipe may say that it runs on, the smallest first."""
_FOLDER = Path(__file__).parents[1] / "recipes"
_HEAD = re.compile(r"# (?P<purpose>\S.*)\n# Runs on: (?P<machine>.+)\n")


@dataclass(frozen=True, slots=True)
class ShippedRecipe:
    """One file: `# PURPOSE`, `# Runs on: MACHINE`, then the recipe."""

    name: str
    purpose: str
    """One sentence."""
    machine: str
    """One of `MACHINES`."""
    text: str
    """The file as it is, comments included."""


def shipped_recipes() -> list[ShippedRecipe]:
    """All of them, by what they run on and then by name.

    Raises:
        SpecError: a file whose first two lines do not say purpose and machine.
    """
    recipes = [_read(file) for file in sorted(_FOLDER.glob("*.yaml"))]
    return sorted(recipes, key=lambda each: (MACHINES.index(each.machine), each.name))


def find_recipe(name: str) -> ShippedRecipe:
    """The one of that name; `-` and `_` are the same.

    Raises:
        SpecError: there is none; with the names that come nearest.
    """
    recipes = {each.name: each for each in shipped_recipes()}
    asked = name.lower().replace("-", "_")
    if asked in recipes:
        return recipes[asked]
    close = difflib.get_close_matches(asked, recipes, n=3) or [each for each in recipes if asked and asked in each]
    hint = f"did you mean {' or '.join(repr(each) for each in close[:3])}? " if close else ""
    raise SpecError(f"no recipe is named {name!r}; {hint}`didact recipes` lists them")


def _read(file: Path) -> ShippedRecipe:
    text = file.read_text(encoding="utf-8")
    head = _HEAD.match(text)
    if head is None or head["machine"] not in MACHINES:
        raise SpecError(
            f"{file} must begin with a line `# what it is for` and a line `# Runs on: ` with one of "
            f"{', '.join(MACHINES)}; found {text.splitlines()[:2]}"
        )
    return ShippedRecipe(file.stem, head["purpose"], head["machine"], text)
