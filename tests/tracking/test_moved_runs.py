"""A folder of runs with its MLflow database, moved, copied or renamed: all is found, and the original is left alone.

And what is said when a run or an experiment was deleted, which no new try mends.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from didact import env
from didact.errors import RegistryError
from didact.files import sha256_file
from didact.registry import Registry
from didact.registry.locate import open_registry
from didact.spec import TrackingSpec
from didact.tracking import JsonLinesTracker, MlflowSync, mlflow_tracker, open_run, sync_run
from didact.tracking.mlflow_tracker import connect
from didact.tracking.sync_state import load_state
from didact.tracking.uris import default_uri
from tests.fakes.adapters import save_tiny_adapter

TRACKING = TrackingSpec()


def begin(run_dir: Path, step: int = 1) -> str | None:
    """A run as the driver begins it, with one more step."""
    words = {"params": {"r": "4"}, "tags": {}, "inputs": [], "resolved_spec": "{}"}
    run_id = open_run(run_dir, run_dir.name, TRACKING, **words)
    JsonLinesTracker(run_dir / "steps.jsonl", attempt=step).log(step, {"loss": 1.0 / step})
    return run_id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of one step, and a registered adapter."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_RUNS", str(runs))
        patch.setenv("DIDACT_CACHE", str(runs.parent / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        begin(runs / "first")
        assert sync_run(runs / "first", TRACKING).complete
        save_tiny_adapter(runs / "first" / "adapter", 1)
        open_registry().register(
            "demo", runs / "first" / "adapter", run_id=None, tags={"gate": "none"}, card="", alias="champion"
        )
    return runs


@pytest.fixture()
def place(made: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder after `request.param` has happened to it."""
    original, new = tmp_path / "original", tmp_path / "elsewhere" / "my runs"
    shutil.copytree(made, original)
    monkeypatch.setenv("DIDACT_RUNS", str(original))
    mlflow_tracker.connect(default_uri(original)).get_experiment("0")  # at home there
    if request.param == "moved":
        shutil.move(original, new)
    else:
        shutil.copytree(original, new)
    if request.param == "copied twice":
        shutil.move(new, new := tmp_path / "last")
    if request.param == "copied without artifacts":
        shutil.rmtree(new / "mlartifacts")
    monkeypatch.setenv("DIDACT_RUNS", str(new))
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return new


def contents(folder: Path) -> dict[str, str]:
    return {str(file): sha256_file(file) for file in folder.rglob("*") if file.is_file() and "-" not in file.suffix}


@pytest.mark.parametrize("place", ["moved", "copied", "copied twice"], indirect=True)
def test_adapters_are_found_runs_go_on_and_the_original_is_left_alone(place: Path, tmp_path: Path) -> None:
    before = contents(tmp_path / "original")
    registry = open_registry()
    assert (registry.download(registry.resolve("demo"), env.cache_dir()) / "adapter.json").is_file()
    old = load_state(place / "first").run_id
    assert begin(place / "first", step=2) == old
    assert sync_run(place / "first", TRACKING).complete
    assert load_state(place / "first").uri == default_uri(place)
    assert connect(default_uri(place)).get_run(old).data.metrics == {"loss": 0.5}
    new = begin(place / "second")
    assert (place / "mlartifacts" / new / "artifacts" / "config" / "recipe.json").is_file()
    save_tiny_adapter(place / "second" / "adapter", 2)
    version = registry.register("demo", place / "second" / "adapter", run_id=new, tags={}, card="", alias=None)
    assert (place / "mlartifacts" / new / "artifacts" / "adapter" / "adapter.json").is_file()
    assert registry.download(version, env.cache_dir()).is_dir()
    assert contents(tmp_path / "original") == before


@pytest.mark.parametrize("place", ["copied without artifacts"], indirect=True)
def test_a_copy_of_the_database_alone_writes_beside_itself(place: Path, tmp_path: Path) -> None:
    before = contents(tmp_path / "original")
    new = begin(place / "second")
    assert (place / "mlartifacts" / new).is_dir()
    assert contents(tmp_path / "original") == before


@pytest.mark.parametrize("place", ["moved", "copied"], indirect=True)
def test_a_run_that_mlflow_had_not_met_is_told_to_the_database_it_lies_beside(place: Path, tmp_path: Path) -> None:
    before = contents(tmp_path / "original")
    (place / "first" / "mlflow.json").unlink()
    pending = {"run_key": "k", "created_ms": 1, "uri": default_uri(tmp_path / "original"), "run_name": "first"}
    (place / "first" / "mlflow_pending.json").write_text(json.dumps({**pending, "inputs": []}))
    assert sync_run(place / "first", TRACKING).complete
    assert load_state(place / "first").uri == default_uri(place)
    assert contents(tmp_path / "original") == before


def test_artifacts_kept_elsewhere_on_purpose_stay_there(made: Path, tmp_path: Path) -> None:
    adapters, uri = tmp_path / "shared" / "mlartifacts", f"sqlite:///{tmp_path}/central.db"
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        save_tiny_adapter(folder, seed)
        connect.cache_clear()
        Registry(uri, adapters).register("demo", folder, run_id=None, tags={}, card="", alias=None)
    assert len(list(adapters.iterdir())) == 2
    assert not (tmp_path / "mlartifacts").exists()


@pytest.fixture()
def run_dir(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs" / "first"


def test_a_deleted_run_is_told_from_a_server_that_is_down(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_id = load_state(run_dir).run_id
    client = connect(default_uri(run_dir.parent))
    client.delete_run(run_id)
    assert begin(run_dir, step=2) == run_id
    result = sync_run(run_dir, TRACKING)
    assert result.deleted and not result.complete
    assert f"MLflow run {run_id} was deleted; restore it with" in (result.problem or "")
    assert f"remove {run_dir}/mlflow.json" in (result.problem or "")
    sync = MlflowSync(run_dir, "first", TRACKING)
    sync.start()
    assert not sync.close("FINISHED")
    assert [each for each in caplog.messages if "does not answer" in each] == []
    assert [each for each in caplog.messages if "records nothing of this run" in each]
    client.restore_run(run_id)
    assert sync_run(run_dir, TRACKING).complete


def test_a_run_that_is_gone_for_good_is_named(run_dir: Path) -> None:
    state = load_state(run_dir)
    (run_dir / "mlflow.json").write_text((run_dir / "mlflow.json").read_text().replace(state.run_id, "0" * 32))
    begin(run_dir, step=2)
    assert f"has no run {'0' * 32} any more" in (sync_run(run_dir, TRACKING).problem or "")
    (run_dir / "mlflow.json").unlink()
    assert sync_run(run_dir, TRACKING).complete


def test_a_deleted_experiment_is_named_with_what_restores_it(run_dir: Path) -> None:
    client = connect(default_uri(run_dir.parent))
    number = client.get_experiment_by_name(TRACKING.experiment).experiment_id
    client.delete_experiment(number)
    assert begin(run_dir.parent / "second") is None
    problem = sync_run(run_dir.parent / "second", TRACKING).problem or ""
    assert f"the MLflow experiment {TRACKING.experiment!r} was deleted" in problem
    assert f"mlflow experiments restore --experiment-id {number}" in problem
    client.restore_experiment(number)
    assert sync_run(run_dir.parent / "second", TRACKING).complete


def test_a_registration_into_a_deleted_experiment_says_so(run_dir: Path) -> None:
    registry = open_registry()
    with closing(sqlite3.connect(run_dir.parent / "mlflow.db")) as connection, connection:
        connection.execute("update experiments set lifecycle_stage = 'deleted'")
    save_tiny_adapter(run_dir / "other", 3)
    with pytest.raises(RegistryError, match=r"experiment .* was deleted; restore it"):
        registry.register("demo", run_dir / "other", run_id=None, tags={}, card="", alias=None)
