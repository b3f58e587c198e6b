"""Addresses of MLflow: who decides, and which are refused before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from didact.errors import SpecError
from didact.spec import TrackingSpec
from didact.tracking import default_uri, resolve_uri
from didact.tracking.uris import artifact_root


def test_recipe_then_environment_then_sqlite_beside_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_uri(TrackingSpec(), tmp_path) == default_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert resolve_uri(TrackingSpec(), tmp_path) == "http://mlflow:5000"
    assert resolve_uri(TrackingSpec(uri="https://other"), tmp_path) == "https://other"


def test_a_relative_runs_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_uri(Path("runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "sqlite:///mlflow.db", "sqlite://", "htp://x"])
def test_addresses_that_depend_on_the_working_directory_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"tracking\.uri"):
        resolve_uri(TrackingSpec(uri=uri), tmp_path)


def test_the_message_names_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(SpecError, match="MLFLOW_TRACKING_URI"):
        resolve_uri(TrackingSpec(), tmp_path)


def test_artifacts_never_depend_on_the_working_directory(tmp_path: Path) -> None:
    assert artifact_root(default_uri(tmp_path)) == tmp_path / "mlartifacts"
    assert artifact_root("http://mlflow:5000") is None
    assert (artifact_root("postgresql+psycopg://host/db") or Path()).is_absolute()


def test_importing_the_room_does_not_import_mlflow() -> None:
    platform = Path(__file__).resolve().parents[2] / "platform"
    code = (
        f"import sys; sys.path.insert(0, {str(platform)!r}); import didact.tracking; assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
