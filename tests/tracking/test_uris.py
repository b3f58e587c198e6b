"""Addresses of MLflow: who decides, and which are refused before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from didact.errors import SpecError
from didact.spec import ServeSpec, TrackingSpec, validate
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


def test_a_servers_password_moves_to_where_mlflow_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:s%40cret@mlflow.example:8443/team")
    assert resolve_uri(TrackingSpec(), tmp_path) == "https://mlflow.example:8443/team"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("ann", "s@cret")
    assert resolve_uri(TrackingSpec(), tmp_path) == "https://mlflow.example:8443/team"


@pytest.mark.parametrize(
    "address, elsewhere",
    [
        ("https://ann:secret@mlflow.example", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql+psycopg://ann:secret@db/mlflow", "PGPASSWORD"),
        ("mysql+pymysql://ann:secret@db/mlflow", "an MLflow server in front"),
    ],
)
def test_passwords_that_runs_would_write_down_are_refused_unseen(
    address: str, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for refuse in (
        lambda: validate(TrackingSpec, {"uri": address}, "recipe"),
        lambda: validate(ServeSpec, {"tracking_uri": address}, "serve file"),
    ):
        with pytest.raises(SpecError, match=elsewhere) as refused:
            refuse()
        assert "secret" not in str(refused.value)
    if not address.startswith("http"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(SpecError, match=elsewhere) as refused:
            resolve_uri(TrackingSpec(), tmp_path)
        assert "secret" not in str(refused.value)


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
