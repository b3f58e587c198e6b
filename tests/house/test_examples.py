"""The example in each room's docstring does what it says, as somebody would try it in a folder of their own."""

import contextlib
import doctest
import importlib
import io
import shutil
from pathlib import Path

import pytest
from deepspeed.accelerator import get_accelerator

ROOT = Path(__file__).resolve().parents[2]
DIDACT = ROOT / "platform" / "didact"
ROOMS = sorted(".".join(face.parent.relative_to(DIDACT.parent).parts) for face in DIDACT.glob("*/**/__init__.py"))


@pytest.fixture(scope="module", autouse=True)
def quiet_deepspeed() -> None:
    """DeepSpeed, which transformers loads to save a model, says on stdout once which device it found."""
    with contextlib.redirect_stdout(io.StringIO()):
        get_accelerator()


@pytest.mark.parametrize("room", ROOMS)
def test_example_runs(room: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("jobs", "tune_spaces", "studies"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(room)
    flow, sign, example = (module.__doc__ or "").partition("\nExample:\n")
    assert "->" in flow, "the docstring shows what comes in and what goes out"
    assert sign and "SKIP" not in example
    test = doctest.DocTestParser().get_doctest(example, {}, room, module.__file__, None)
    assert test.examples
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert not told, "".join(told)
