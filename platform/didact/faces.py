"""The face of a room that loads nothing before one of its names is used.

A room whose parts need torch or PEFT would otherwise load them for whoever wants one of its light parts.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazily(package: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names stand in its `if TYPE_CHECKING:` block only.

    No name may be that of a module in the package, which Python would give instead.

    Args:
        package: its `__name__`.
    """

    def get(name: str) -> Any:
        face = sys.modules[package]
        if name.startswith("__") or name not in face.__all__:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_homes(Path(str(face.__file__)))[name]), name)
        setattr(face, name, value)  # asked once
        return value

    return get


def _homes(file: Path) -> dict[str, str]:
    """Name -> the module that a face takes it from."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    checked = (
        node
        for block in tree.body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
    )
    return {each.name: str(node.module) for node in checked if isinstance(node, ast.ImportFrom) for each in node.names}
