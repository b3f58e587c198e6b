"""A real kernel: what a notebook shows of results, errors and a run."""

import json
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "first_run.ipynb"


@pytest.fixture(autouse=True)
def of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "platform"))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


def outputs(*cells: str, folder: Path) -> list[list[Any]]:
    """What each cell leaves below it."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    place = {"metadata": {"path": folder}}
    nbclient.NotebookClient(notebook, timeout=250, allow_errors=True, resources=place).execute()
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.slow
def test_results_errors_and_answers(tmp_path: Path) -> None:
    recipe, mistake, cards, answer = outputs(
        "import didact\ndidact.recipe(name='x', data=[{'instruction': 'Add.', 'output': '1'}], training={'steps': 1})",
        "didact.recipe('demo', load_in_4bit=True)",
        "didact.cards(task='math', reasoning=True, commercial=True)",
        "with didact.load() as model:\n    print(model.chat('What is the capital of France?', max_new_tokens=8))",
        folder=tmp_path,
    )
    assert recipe[0].data["text/plain"].startswith("name: x\n")
    assert "<pre" in recipe[0].data["text/html"]
    (error,) = mistake
    assert error.ename == "SpecError"
    (told,) = error.traceback
    assert told.startswith("SpecError: recipe demo") and "model.quantization.bits" in told
    assert "Traceback" not in told
    assert "gsm8k-cot" in cards[0].data["text/plain"] and "gsm8k-cot" in cards[0].data["text/html"]
    assert "Paris" in "".join(part.text for part in answer if part.get("name") == "stdout")
    assert not [part.text for part in answer if part.get("name") == "stderr" and "IProgress" in part.text]


@pytest.mark.ray
@pytest.mark.nightly
def test_the_notebook_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIDACT_CACHE", "DIDACT_RUNS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=280, resources={"metadata": {"path": tmp_path}}).execute()
    shown = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    (run,) = (parts for source, parts in shown.items() if "didact.finetune(" in source)
    pictures = [part.data["text/html"] for part in run if "data" in part]
    assert any('value="8" max="8"' in picture for picture in pictures), "the bar reached its end"
    assert any("eval" in picture or "loss" in picture for picture in pictures)
    (rejected,) = (parts for source, parts in shown.items() if "quarantine" in source)
    assert json.loads(rejected[0].text.splitlines()[0])["line"] == 201
