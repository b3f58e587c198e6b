"""Versions are made once, aliases move knowingly, and what is fetched is what was registered."""

import json
import shutil
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from typer.testing import CliRunner

from didact import env
from didact.cli import app
from didact.errors import AdapterError, NotRegistered, RegistryError
from didact.files import write_json
from didact.registry import ModelVersion, Registry
from didact.spec import TrackingSpec
from didact.tracking import default_uri, open_run
from didact.tracking.mlflow_tracker import connect
from tests.fakes.adapters import seal
from tests.fakes.adapters import small_adapter as adapter
from tests.fakes.disks import small_disk
from tests.fakes.processes import begin, forking
from tests.fakes.verdicts import verdict_on


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One sqlite database for the module: its first use takes seconds. Each test uses its own names."""
    return Registry(default_uri(tmp_path_factory.mktemp("registry")))


def register(registry: Registry, name: str, folder: Path, alias: str | None = None) -> ModelVersion:
    return registry.register(
        name,
        folder,
        run_id=None,
        tags={"recipe": "demo"},
        card="# Card",
        alias=alias,
        verdict=verdict_on(folder) if (folder / "adapter.json").is_file() else None,
    )


def stored(registry: Registry, version: ModelVersion) -> Path:
    """The adapter's folder in the artifact store."""
    return Path(connect(registry.uri).get_run(version.run_id).info.artifact_uri) / version.source.rpartition("/")[2]


def test_a_registered_adapter_comes_back_byte_by_byte(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter")
    version = register(registry, "bytes", folder, alias="candidate")
    assert (version.id, version.aliases, version.tags["recipe"]) == ("bytes:1", ("candidate",), "demo")
    fetched = registry.download(version, tmp_path / "cache")
    assert fetched == tmp_path / "cache" / "adapters" / version.adapter_sha256
    assert {file.name: file.read_bytes() for file in fetched.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    assert (stored(registry, version) / "README.md").read_text() == "# Card"
    assert connect(registry.uri).get_model_version("bytes", "1").description == "# Card"


@pytest.mark.fault("M6")
def test_the_same_adapter_again_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    first = register(registry, "again", adapter(tmp_path / "a"))
    second = register(registry, "again", adapter(tmp_path / "b"), alias="champion")
    other = register(registry, "again", adapter(tmp_path / "c", weights="others"))
    assert (first.version, second.version, other.version) == (1, 1, 2)
    assert second.aliases == ("champion",)


def register_when_told(uri: str, folder: Path, there: Connection) -> None:
    registry = Registry(uri)
    there.send("ready")
    there.recv()
    there.send(register(registry, "both", folder, alias="champion").version)


@pytest.mark.fault("M6")
def test_two_processes_at_once_make_one_version(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    here, there = forking().Pipe()
    other = begin(register_when_told, registry.uri, folder, there)
    there.close()  # so that its end is heard
    try:
        assert here.recv() == "ready"
        here.send("go")
        mine = register(registry, "both", folder, alias="champion")
        assert (mine.version, here.recv()) == (1, 1)
    finally:
        other.kill()
        other.join()
    assert [version.id for version in registry.list() if version.name == "both"] == ["both:1"]


def test_changes_to_a_name_exclude_each_other(registry: Registry) -> None:
    with registry._changing("locked"):
        (lock,) = (env.cache_dir() / "locks").glob("registry-*-locked.lock")
        with pytest.raises(Timeout):
            FileLock(lock).acquire(timeout=0)
    with FileLock(lock, timeout=0):
        pass


@pytest.mark.fault("M6")
def test_a_version_doubled_by_a_repeated_request_is_removed(registry: Registry, tmp_path: Path) -> None:
    first = register(registry, "doubled", adapter(tmp_path / "a"))
    client = connect(registry.uri)
    client.create_model_version("doubled", first.source, run_id=first.run_id, tags=first.tags)
    assert registry._oldest_with("doubled", first.adapter_sha256, delete_others=True) == 1
    assert [version.id for version in registry.list() if version.name == "doubled"] == ["doubled:1"]


def test_the_files_become_artifacts_of_the_training_run(registry: Registry, tmp_path: Path) -> None:
    run_id = open_run(tmp_path / "run", "run", TrackingSpec(uri=registry.uri), {}, {}, (), "{}")
    folder = adapter(tmp_path / "a")
    first = registry.register("of-run", folder, run_id=run_id, tags={}, card="", alias=None)
    assert (first.run_id, first.source) == (run_id, f"runs:/{run_id}/adapter")
    elsewhere = registry.register("of-run-too", folder, run_id=run_id, tags={}, card="", alias=None)
    assert elsewhere.source == first.source
    second = registry.register("of-run", adapter(tmp_path / "b", "more"), run_id=run_id, tags={}, card="", alias=None)
    assert second.source != first.source
    for version in (first, second):
        assert registry.download(version, tmp_path / "cache").is_dir()


def test_references(registry: Registry, tmp_path: Path) -> None:
    for number in range(3):
        register(registry, "named", adapter(tmp_path / str(number), weights=str(number)))
    assert registry.resolve("named").version == 3
    registry.promote("named", 2, alias="candidate")
    assert registry.resolve("named").version == 2
    registry.promote("named", 1)
    assert registry.resolve("named").version == 1
    assert registry.resolve("named", default_alias="other").version == 2
    assert registry.resolve("named@candidate").version == 2
    assert registry.resolve("named:3").id == "named:3"
    assert [version.version for version in registry.list() if version.name == "named"] == [3, 2, 1]
    assert "named" in registry.names()


def test_what_is_absent_is_said_with_what_there_is(registry: Registry, tmp_path: Path) -> None:
    register(registry, "present", adapter(tmp_path / "a"), alias="candidate")
    with pytest.raises(NotRegistered, match=r"'absent'; registered: .*present"):
        registry.resolve("absent")
    with pytest.raises(NotRegistered, match=r"versions of present: 1; aliases: candidate -> 1"):
        registry.resolve("present@champion")
    for asked in (lambda: registry.resolve("present:7"), lambda: registry.version("present", 7)):
        with pytest.raises(NotRegistered, match=r"present:7 is not registered.*aliases: candidate -> 1"):
            asked()
    with pytest.raises(NotRegistered, match=r"present:7"):
        registry.promote("present", 7)


def test_asking_makes_no_database(tmp_path: Path) -> None:
    none = Registry(default_uri(tmp_path))
    assert none.names() == () and none.holdings() == () and len(none.list()) == 0
    with pytest.raises(NotRegistered, match="no registered model 'helper'; registered: none"):
        none.resolve("helper@champion")
    assert list(tmp_path.iterdir()) == []


def test_holdings_say_what_every_name_means(registry: Registry, tmp_path: Path) -> None:
    for number in range(3):
        register(registry, "held", adapter(tmp_path / str(number), f"weights {number}"))
    registry.promote("held", 2)
    connect(registry.uri).create_registered_model("empty")
    held = {each.name: each for each in registry.holdings()}
    assert (held["held"].aliases, held["held"].newest) == ({"champion": 2}, registry.resolve("held:3"))
    assert (held["empty"].aliases, held["empty"].newest) == ({}, None)
    second = registry.version("held", 2)
    assert (second.id, second.adapter_sha256) == ("held:2", registry.resolve("held").adapter_sha256)
    with pytest.raises(NotRegistered):
        registry.version("held", 9)


def test_models_of_other_tools_are_left_alone(registry: Registry) -> None:
    client = connect(registry.uri)
    client.create_registered_model("foreign")
    client.create_model_version("foreign", "s3://somewhere/model")
    assert "foreign" not in registry.names()
    with pytest.raises(RegistryError, match="not an adapter registered by didact"):
        registry.resolve("foreign:1")


def test_promotion_refuses_to_undo_a_newer_one(registry: Registry, tmp_path: Path) -> None:
    for number in range(3):
        register(registry, "cas", adapter(tmp_path / str(number), weights=str(number)))
    registry.promote("cas", 1, expected_current=None)
    registry.promote("cas", 2, expected_current=1)
    with pytest.raises(RegistryError, match="points to version 2, expected version 1"):
        registry.promote("cas", 3, expected_current=1)
    with pytest.raises(RegistryError, match="expected nothing"):
        registry.promote("cas", 3, expected_current=None)
    assert registry.resolve("cas@champion").version == 2


def test_rollback_goes_one_step_back(registry: Registry, tmp_path: Path) -> None:
    for number in range(2):
        register(registry, "back", adapter(tmp_path / str(number), weights=str(number)))
    registry.promote("back", 1)
    with pytest.raises(RegistryError, match="no earlier version"):
        registry.rollback("back")
    registry.promote("back", 2)
    registry.promote("back", 2)
    assert connect(registry.uri).get_registered_model("back").tags["champion.previous"] == "1"
    assert registry.rollback("back").version == 1
    with pytest.raises(RegistryError, match="no earlier version"):
        registry.rollback("back")


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a b", "-x", "a" * 129, "a'b"])
def test_names_that_could_escape_are_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="model name"):
        register(registry, name, adapter(tmp_path / "a"))


@pytest.mark.parametrize("alias", ["latest", "v3", "a b", ""])
def test_reserved_aliases_are_refused_before_anything_is_uploaded(
    registry: Registry, tmp_path: Path, alias: str
) -> None:
    with pytest.raises(RegistryError, match="alias"):
        register(registry, "reserved", adapter(tmp_path / "a"), alias=alias)
    assert "reserved" not in registry.names()


@pytest.mark.parametrize("name", ["adapter_model.bin", "optimizer.pt", "code.py", "adapter_model.safetensors.pkl"])
def test_files_that_could_run_code_are_refused_by_name(registry: Registry, tmp_path: Path, name: str) -> None:
    folder = adapter(tmp_path / "a")
    (folder / name).write_text("x")
    seal(folder)
    with pytest.raises(AdapterError, match=rf"{name}.*can run code"):
        register(registry, "unsafe", folder)


def test_links_folders_and_damage_are_refused(registry: Registry, tmp_path: Path) -> None:
    linked = adapter(tmp_path / "linked")
    (linked / "secret.json").symlink_to("/etc/passwd")
    nested = adapter(tmp_path / "nested")
    (nested / "inner").mkdir()
    changed = adapter(tmp_path / "changed")
    weights = changed / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"S")
    unlisted = adapter(tmp_path / "unlisted")
    (unlisted / "extra.json").write_text("{}")
    bare = adapter(tmp_path / "bare")
    (bare / "template_contract.json").unlink()
    seal(bare)
    cases = {linked: "link", nested: "inner", changed: "sha256", unlisted: "extra", bare: "template_contract"}
    for folder, word in cases.items():
        with pytest.raises(AdapterError, match=word):
            register(registry, "damaged", folder)


DAMAGE = {
    "truncated": r"has \d+ bytes, expected \d+",
    "flipped": "does not match its sha256",
    "missing": "adapter_model.safetensors is missing",
    "manifest": "adapter.json does not match the registered sha256",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_artifact_never_enters_the_cache(registry: Registry, tmp_path: Path, damage: str) -> None:
    version = register(registry, f"store-{damage}", adapter(tmp_path / "a", weights=f"{damage} weights".ljust(17)))
    weights = stored(registry, version) / "adapter_model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "flipped":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    elif damage == "missing":
        weights.unlink()
    else:  # weights and manifest exchanged together, so that they agree with each other
        weights.write_text("other weights")
        seal(weights.parent)
    with pytest.raises(AdapterError, match=f"{version.id}.*{DAMAGE[damage]}"):
        registry.download(version, tmp_path / "cache")
    left = [file.name for file in (tmp_path / "cache" / "adapters").iterdir() if not file.name.endswith(".lock")]
    assert left == []


def test_a_manifest_cannot_name_a_path(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    record = json.loads((folder / "adapter.json").read_text())
    record["files"]["../escaped.json"] = {"size": 0, "sha256": "0" * 64}
    write_json(folder / "adapter.json", record)
    with pytest.raises(AdapterError, match=r"\.\./escaped"):
        register(registry, "escape", folder)


def test_a_registered_digest_cannot_name_a_path(registry: Registry, tmp_path: Path) -> None:
    version = register(registry, "digest", adapter(tmp_path / "a"))
    with pytest.raises(AdapterError, match="64 hex digits"):
        registry.download(replace(version, adapter_sha256="../../up"), tmp_path / "cache")


@pytest.mark.fault("C5")
def test_a_disk_that_fills_up_during_a_download(registry: Registry, tmp_path: Path) -> None:
    version = register(registry, "large", adapter(tmp_path / "a", weights="w" * 2**20))
    with small_disk(tmp_path / "disk") as disk:
        disk.fill(leaving=2**19)
        with pytest.raises(RegistryError, match=r"is in the registry but could not be fetched; 0 bytes are free in"):
            registry.download(version, disk.path / "cache")
        assert all(each.name.endswith(".lock") for each in (disk.path / "cache" / "adapters").iterdir()), "litter"
        disk.make_room()
        assert (registry.download(version, disk.path / "cache") / "adapter_model.safetensors").stat().st_size > 2**20


def test_a_cached_adapter_is_reused_and_a_damaged_one_fetched_again(registry: Registry, tmp_path: Path) -> None:
    version = register(registry, "cached", adapter(tmp_path / "a", weights="cached weights"))
    fetched = registry.download(version, tmp_path / "cache")
    weights = fetched / "adapter_model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before.replace(b"cached", b"CACHED"))
    assert (registry.download(version, tmp_path / "cache") / weights.name).read_bytes() == before
    weights.write_text("exchanged with its manifest")
    seal(fetched)
    assert (registry.download(version, tmp_path / "cache") / weights.name).read_bytes() == before
    shutil.rmtree(stored(registry, version))
    assert registry.download(version, tmp_path / "cache") == fetched


def test_a_dead_registry_is_a_registry_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    dead = Registry("http://127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:9 could not read any"):
        dead.resolve("any")
    with pytest.raises(RegistryError, match="could not list models"):
        dead.list()


def test_versions_show_themselves_and_an_alias_goes_back_from_the_terminal(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.setenv("COLUMNS", "100")
    assert "nothing is registered yet" in str(registry.list("shown"))
    for number in range(2):
        register(registry, "shown", adapter(tmp_path / str(number), weights=str(number)))
    registry.promote("shown", 1)
    registry.promote("shown", 2)
    versions = registry.list("shown")
    assert [version.id for version in versions] == ["shown:2", "shown:1"] == [each.id for each in versions[:]]
    terminal = CliRunner()
    table = [line.split()[:2] for line in terminal.invoke(app, ["models"]).output.splitlines()]
    assert ["shown:2", "@champion"] in table
    assert terminal.invoke(app, ["rollback", "shown"]).output == "shown@champion is version 1 again\n"
    assert registry.resolve("shown@champion").version == 1
    again = terminal.invoke(app, ["rollback", "shown"])
    assert isinstance(again.exception, RegistryError)
