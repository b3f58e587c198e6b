"""The history that the tests of this room share."""

from pathlib import Path

import pytest

from tests.fakes.traced import History, make_history


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> History:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("history")
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "runs"))
        return make_history(folder)


@pytest.fixture
def history(made: History, monkeypatch: pytest.MonkeyPatch) -> History:
    """With its cache and runs as the process's own. Tests leave it as it is."""
    monkeypatch.setenv("DIDACT_CACHE", str(made.folder / "cache"))
    monkeypatch.setenv("DIDACT_RUNS", str(made.folder / "runs"))
    return made


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"
