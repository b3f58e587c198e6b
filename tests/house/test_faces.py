"""Rooms whose face loads nothing before one of its names is used."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAZY = sorted(
    ".".join(file.parent.relative_to(ROOT / "platform").parts)
    for file in (ROOT / "platform" / "didact").rglob("__init__.py")
    if "= lazily(" in file.read_text(encoding="utf-8")
)


def test_there_are_such_rooms() -> None:
    assert "didact.models" in LAZY and "didact.preparation" in LAZY


@pytest.mark.parametrize("package", LAZY)
def test_every_name_is_found_where_its_face_says(package: str) -> None:
    face = importlib.import_module(package)
    for name in face.__all__:
        value = getattr(face, name)
        assert value is getattr(importlib.import_module(package), name)
        # Python would give the module instead, once it is loaded.
        assert not (Path(str(face.__file__)).with_name(f"{name}.py")).exists()


@pytest.mark.parametrize("name", ["loaded_base", "torch", "_homes", "__wrapped__"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"module 'didact.models' has no attribute '{name}'"):
        getattr(importlib.import_module("didact.models"), name)


def test_a_light_name_loads_light_parts_only() -> None:
    code = (
        "import sys\nsys.path.insert(0, 'platform')\nfrom didact.models import load_tokenizer\n"
        "assert not {'torch', 'peft', 'bitsandbytes'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
