"""Names that would shadow other people's modules, rooms that introduce themselves, and sizes that stay readable."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import BesideRay, pytest_ignore_collect

ROOT = Path(__file__).resolve().parents[2]
DIDACT = ROOT / "platform" / "didact"
ROOMS = (
    *("cache", "spec", "runs", "datasets", "mixtures", "tokens", "models", "preparation", "training", "evaluation"),
    *(
        "tracking",
        "registry",
        "lineage",
        "serving",
        "cluster",
        "tuning",
        "studies",
        "reports",
        "connect",
        "cli",
        "notebook",
    ),
    *("gpu_proof", "pages"),
)
FOLDERS = ("platform", "jobs", "serve", "benchmarks", "tests")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
CEREMONY = re.compile(r"(None|Nothing|Do nothing|See `[^`]*`)\.?")
VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "handler", "core", "legacy", "misc"}


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def test_platform_is_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow Python's own module `platform`"


def test_pythons_own_platform_module_wins() -> None:
    code = "import platform, didact; print(platform.system(), didact.__version__)"
    path = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Linux", importlib.metadata.version("didact")]


@pytest.mark.parametrize("folder", ["jobs", "serve", "benchmarks"])
def test_scripts_shadow_no_installed_module(folder: str) -> None:
    taken = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()}
    assert {"ray", "datasets", "queue"} <= taken
    shadowing = [file.name for file in (ROOT / folder).rglob("*.py") if file.stem in taken]
    assert shadowing == [], f"`python {folder}/x.py` puts {folder}/ first on sys.path"


def test_top_level_folders_are_no_packages() -> None:
    folders = ("jobs", "serve", "tune_spaces", "studies", "benchmarks", "tests")
    assert [folder for folder in folders if (ROOT / folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_room_introduces_itself(room: str) -> None:
    docstring = ast.get_docstring(ast.parse((DIDACT / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert "->" in docstring, "the docstring shows what comes in and what goes out"
    assert "Example" in docstring, "the docstring shows how it is used"


def test_there_are_no_other_rooms() -> None:
    assert {file.parent.name for file in DIDACT.glob("*/__init__.py")} == set(ROOMS)


def test_names_say_what_is_inside() -> None:
    files = python_files("platform", "jobs", "serve", "benchmarks")
    assert [str(file) for file in files if VAGUE & {*re.split(r"[_.]", file.name), file.parent.name}] == []


def test_rooms_are_small_enough_to_look_around() -> None:
    loose = {
        str(face.parent.relative_to(DIDACT)): len(list(face.parent.glob("*.py"))) - 1
        for face in DIDACT.glob("*/**/__init__.py")
    }
    assert {room: count for room, count in loose.items() if count > 15} == {}, "give it sub-rooms"


def test_files_are_short() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in python_files(*FOLDERS)}
    assert {str(file): length for file, length in lengths.items() if length > 400} == {}


def test_functions_are_short() -> None:
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file in python_files(*FOLDERS)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > 60
    ]
    assert long == []


def test_docstrings_say_something() -> None:
    empty = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file in python_files("platform")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and CEREMONY.fullmatch(ast.get_docstring(node) or "")
    ]
    assert empty == [], "an implementation of a protocol is marked @override and needs no docstring"


def test_launchers_only_load_resolve_and_dispatch() -> None:
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in (ROOT / "jobs").glob("*.py")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > 40} == {}


def test_nothing_is_left_unfinished() -> None:
    marked = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in python_files("platform", "jobs", "serve", "benchmarks")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert marked == []


def test_test_files_have_names_of_their_own() -> None:
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest imports them by their bare name"


def test_marks_stand_in_the_files_of_their_tests() -> None:
    marks = re.compile(r"pytest\.mark\.(ray|slow|fault|nightly)\b")
    elsewhere = [
        str(file.relative_to(ROOT))
        for file in python_files("tests")
        if not file.name.startswith("test_") and marks.search(file.read_text(encoding="utf-8"))
    ]
    assert elsewhere == [], "pytest_ignore_collect passes over files that do not name a mark"


@pytest.mark.parametrize(
    ("expression", "passed_over"),
    [("not nightly and ray", True), ("not nightly and not ray", None), ("", None), ("fault and nightly", True)],
)
def test_files_without_a_mark_that_is_asked_for_are_passed_over(
    tmp_path: Path, expression: str, passed_over: bool | None
) -> None:
    config = SimpleNamespace(option=SimpleNamespace(markexpr=expression))
    file = tmp_path / "test_plain.py"
    file.write_text("def test_plain(): ...\n", encoding="utf-8")
    assert pytest_ignore_collect(file, config) is passed_over  # type: ignore[arg-type]
    file.write_text("@pytest.mark.ray\n@pytest.mark.nightly\n@pytest.mark.fault('T1')\ndef test_plain(): ...\n")
    assert pytest_ignore_collect(file, config) is None  # type: ignore[arg-type]
    assert pytest_ignore_collect(tmp_path / "conftest.py", config) is None  # type: ignore[arg-type]


def test_files_that_start_ray_are_taken_by_one_process() -> None:
    scheduler = object.__new__(BesideRay)
    files = ("tests/e2e/test_jobs.py", "tests/tuning/test_sweep.py", "tests/spec/test_spec.py")
    assert [scheduler._split_scope(f"{file}::test[a::b]") for file in files] == ["ray", "ray", files[2]]
