"""Imports between rooms go down only, and each heavy library has its rooms. Imports inside functions count as well."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "platform"

# Top first. A module may import from rows below its own and from its own room, never from its row's other rooms.
ROWS = (
    ("cli", "notebook", "demo"),
    # One page about a recipe's data: rows, tokens, mixture and evaluation questions come together only here.
    ("reports",),
    ("tuning", "studies"),
    ("cluster", "serving.app"),
    ("lineage",),
    ("registry", "connect"),
    ("preparation", "gpu_proof"),
    ("training", "evaluation", "serving.engine"),
    ("models", "tokens"),
    ("devices", "capacity"),
    ("mixtures",),
    ("datasets",),
    ("runs", "tracking"),
    ("spec", "cache"),
    ("failpoints", "adapter_folder", "addresses"),
    ("errors", "logs", "env", "files", "display", "faces", "interrupts", "pages"),
)
DEPTH = {room: depth for depth, row in enumerate(ROWS) for room in row}
TENSOR_ROOMS = {
    *(
        "tuning",
        "studies",
        "cluster",
        "serving.app",
        "registry",
        "preparation",
        "training",
        "evaluation",
        "serving.engine",
    ),
    *("models", "tokens", "devices", "gpu_proof"),
}
# Library -> rooms that may import it. mlflow and ray have their own rules below.
LIBRARY_ROOMS = {
    "peft": {"models"},
    "datasets": {"datasets"},
    "lm_eval": {"evaluation"},
    "torch": TENSOR_ROOMS,
    "transformers": TENSOR_ROOMS,
}


def module_of(file: Path, source: Path) -> str:
    parts = file.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room a didact module lies in; None for the package itself. Serving has two: application and engine.

    The engine knows neither Ray nor the registry; the rest of serving turns requests and registry into calls of it.
    """
    parts = module.split(".")[1:]
    if not parts:
        return None
    if parts[0] != "serving":
        return parts[0]
    return "serving.engine" if parts[1:2] == ["engine"] else "serving.app"


def imports_of(file: Path, modules: set[str], source: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute module of every import in `file`, wherever it stands."""
    package = module_of(file, source).split(".")
    package = package if file.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                inner = f"{base}.{name.name}"
                yield node.lineno, inner if inner in modules else base


def rule_broken(module: str, target: str) -> str | None:
    """Why `module` may not import `target`, or None when it may."""
    room = room_of(module)
    if room is None:
        # `import didact` passes on the names of the Python face, when one of them is used.
        allowed = target == "didact.notebook" or not target.startswith("didact")
        return None if allowed else f"didact/__init__.py imports {target}"
    library = target.split(".")[0]
    if library == "didact":
        other = room_of(target)
        if other is None or other == room or DEPTH[other] > DEPTH[room]:
            return None
        return f"{room} may not import {other}"
    file = module.rsplit(".", 1)[-1]
    if library == "mlflow":
        allowed = room == "registry" or (room == "tracking" and "mlflow" in file)
        return None if allowed else "mlflow belongs to registry and to tracking's MLflow files"
    if library == "ray":
        on_ray = module.startswith("didact.connect") or module in ("didact.serving.app", "didact.serving.deploy")
        return (
            None if on_ray or room in ("cluster", "tuning") else "ray belongs to cluster, tuning and the Serve modules"
        )
    if room not in LIBRARY_ROOMS.get(library, {room}):
        return f"{library} belongs to {', '.join(sorted(LIBRARY_ROOMS[library]))}"
    return None


def broken_imports(source: Path) -> list[str]:
    files = sorted((source / "didact").rglob("*.py"))
    modules = {module_of(file, source) for file in files}
    return [
        f"{file.relative_to(source)}:{line}: {problem}"
        for file in files
        for line, target in imports_of(file, modules, source)
        if (problem := rule_broken(module_of(file, source), target))
    ]


def test_every_module_lies_in_a_room_of_the_table() -> None:
    files = (SOURCE / "didact").rglob("*.py")
    rooms = {room for file in files if (room := room_of(module_of(file, SOURCE)))}
    assert rooms <= set(DEPTH)


def test_contributing_shows_the_table() -> None:
    page = (SOURCE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("holds the table):\n\n```\n")[1].split("\n```")[0]
    assert [tuple(line.split()) for line in table.splitlines()] == list(ROWS)


def test_imports_go_down_only() -> None:
    assert broken_imports(SOURCE) == []


def arrows(source: Path) -> dict[str, set[str]]:
    """Module -> the didact modules it imports. A package's face is left out: it only passes names on."""
    files = {module_of(file, source): file for file in (source / "didact").rglob("*.py")}
    inner = {module for module, file in files.items() if file.name != "__init__.py"}
    return {module: {target for _, target in imports_of(files[module], set(files), source)} & inner for module in inner}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The first circle of a graph, its beginning at both ends; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def between_sub_rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same arrows between the packages inside rooms; a module that lies loose in its room stands for itself."""

    def place(module: str) -> str:
        return module.rpartition(".")[0] if module.count(".") > 2 else module

    found: dict[str, set[str]] = {place(module): set() for module in graph}
    for module, targets in graph.items():
        found[place(module)] |= {place(target) for target in targets} - {place(module)}
    return found


def test_imports_make_no_circle() -> None:
    assert circle(arrows(SOURCE)) == []
    assert circle(between_sub_rooms(arrows(SOURCE))) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    for name, text in {
        "datasets/forms/a.py": "from didact.datasets.readers.b import read",
        "datasets/readers/b.py": "import json",
        "datasets/readers/c.py": "def late():\n    from didact.datasets.forms import a",
    }.items():
        file = tmp_path / "didact" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert circle(arrows(tmp_path)) == []
    assert set(circle(between_sub_rooms(arrows(tmp_path)))) == {"didact.datasets.forms", "didact.datasets.readers"}
    (tmp_path / "didact/datasets/readers/b.py").write_text("from didact.datasets.readers import c\n")
    assert len(circle(arrows(tmp_path))) == 4


@pytest.mark.parametrize(
    ("file", "line", "problem"),
    [
        ("spec/a.py", "import torch", "torch belongs"),
        ("spec/a.py", "def load():\n    from didact.runs import Run", "spec may not import runs"),
        ("runs/a.py", "from didact.tracking import Null", "runs may not import tracking"),
        ("models/a.py", "from didact import tokens", "models may not import tokens"),
        ("mixtures/a.py", "from ..training import loop", "mixtures may not import training"),
        ("training/a.py", "from peft.tuners import lora", "peft belongs"),
        ("training/a.py", "import ray.train", "ray belongs"),
        ("tracking/jsonl.py", "import mlflow", "mlflow belongs"),
        (
            "serving/engine/a.py",
            "from didact.serving.app import build",
            "serving.engine may not import serving.app",
        ),
        ("serving/replica/worker.py", "import ray", "ray belongs"),
        ("serving/engine/a.py", "from didact.registry import resolve", "serving.engine may not import registry"),
        ("serving/app.py", "from didact import cluster", "serving.app may not import cluster"),
        ("env.py", "from didact.errors import SpecError", "env may not import errors"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, line: str, problem: str) -> None:
    for room in ("tokens", "cluster", "training"):
        (tmp_path / "didact" / room).mkdir(parents=True)
        (tmp_path / "didact" / room / "__init__.py").touch()
    target = tmp_path / "didact" / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(line + "\n")
    (found,) = broken_imports(tmp_path)
    assert file in found
    assert problem in found


def test_allowed_imports_pass(tmp_path: Path) -> None:
    allowed = {
        "cli/verbs.py": "from didact.tuning import sweep\nfrom didact.spec import load_spec",
        "serving/deploy.py": "from ray import serve\nfrom didact.serving.app import build",
        "serving/app.py": "import ray\nfrom didact.serving.engine import Engine\nfrom didact.registry import resolve",
        "tracking/mlflow_tracker.py": "import mlflow\nfrom didact.errors import DidactError",
        "datasets/hub.py": "import datasets\nfrom didact.datasets.types import Row",
    }
    for name, text in allowed.items():
        file = tmp_path / "didact" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert broken_imports(tmp_path) == []


def test_environment_variables_are_read_in_one_file() -> None:
    readers = [
        f"{file.relative_to(SOURCE)}:{node.lineno}"
        for file in sorted((SOURCE / "didact").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv", "putenv")
        and file != SOURCE / "didact" / "env.py"
        # Programs of their own, which import nothing of didact.
        and file not in (SOURCE / "didact/connect/forking/server.py", SOURCE / "didact/connect/forking/client.py")
    ]
    assert readers == []
