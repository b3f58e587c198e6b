"""docs/python.md and its notebook say what is there."""

import json
import re
from pathlib import Path

import didact

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
CELLS = [
    cell
    for cell in json.loads((ROOT / "docs" / "first_run.ipynb").read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]
USED = re.compile(r"\bdidact\.([a-zA-Z_]+)")


def test_the_page_lists_every_name() -> None:
    assert sorted(re.findall(r"^\| `(\w+)", PAGE, re.MULTILINE)) == sorted(didact.__all__)


def test_code_of_the_page_and_the_notebook_uses_names_that_exist() -> None:
    pieces = [*re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), *("".join(cell["source"]) for cell in CELLS)]
    assert len(pieces) > 10
    for piece in pieces:
        compile(piece, "piece", "exec")
    assert {name for piece in pieces for name in USED.findall(piece)} <= set(didact.__all__)


def test_the_notebook_is_kept_without_outputs() -> None:
    assert [cell["source"] for cell in CELLS if cell["outputs"] or cell["execution_count"]] == []


def test_the_recipe_of_the_notebook_is_one() -> None:
    names: dict[str, object] = {}
    for cell in CELLS[:3]:
        exec("".join(cell["source"]), names)
    assert isinstance(names["recipe"], type(didact.recipe("demo")))
