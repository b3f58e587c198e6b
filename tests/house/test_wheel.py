"""The package that pip builds holds all that the library reads beside its code, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import didact
from didact.spec.shipped import shipped_recipes

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def test_the_wheel_holds_every_file_of_the_library(tmp_path: Path) -> None:
    source, library = tmp_path / "source", Path(didact.__file__).parent
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(library, source / "platform" / "didact", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("didact/")}
        entry_points = archive.read(f"{wheel.name.rpartition('-py3')[0]}.dist-info/entry_points.txt").decode()
    copied = source / "platform"
    assert packed == {file.relative_to(copied).as_posix() for file in copied.rglob("didact/**/*") if file.is_file()}
    assert {f"didact/recipes/{recipe.name}.yaml" for recipe in shipped_recipes()} <= packed
    assert "didact = didact.cli:main" in entry_points
