"""Code of one's own that decides figures: the file of a function, and every file of one's own that it imports."""

import ast
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from didact.files import sha256_file

_SHARED = tuple(Path(path).resolve() for name, path in sysconfig.get_paths().items() if name.endswith("lib"))
"""Python's own folders and those of installed packages, whose versions a run records."""


def own_code(function: Callable[..., Any]) -> dict[str, str]:
    """Module -> sha256 of its file: the one that a function comes from, and those of one's own that it needs.

    What is installed is left out. Imports inside functions count; names that are made up while the program runs do not.
    """
    module = getattr(function, "__module__", None) or ""
    try:
        file = Path(inspect.getsourcefile(function) or "")
    except TypeError:  # an object of C, or one that can be called
        file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    found: dict[str, str] = {}
    _gather(module, file, found)
    return found


def _gather(module: str, file: Path, found: dict[str, str]) -> None:
    if module in found or not _is_own(file):
        return
    found[module] = sha256_file(file)
    for name in _imported(file, module):
        if (needed := _file_of(name)) is not None:
            _gather(name, needed, found)


def _is_own(file: Path) -> bool:
    if file.suffix != ".py" or not file.is_file():
        return False
    resolved = file.resolve()
    return not any(resolved.is_relative_to(folder) for folder in _SHARED) and "site-packages" not in resolved.parts


def _imported(file: Path, module: str) -> Iterator[str]:
    """Names that a file imports; of `from x import y` also `x.y`, which may be a module."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*above, *([node.module] if node.module else [])])
            yield from _with_parents(name)
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> Iterator[str]:
    """Packages run before what lies in them."""
    parts = name.split(".")
    return (".".join(parts[:depth]) for depth in range(1, len(parts) + 1) if name)


def _file_of(name: str) -> Path | None:
    if name.split(".")[0] == "didact":  # its version is recorded
        return None
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None)
    if loaded is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, AttributeError, ValueError):
            return None
        origin = spec.origin if spec is not None else None
    return Path(origin) if origin else None
