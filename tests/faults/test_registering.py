"""The registry's rows of the fault table: an end at any moment of a registration, and two promotions at once."""

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from didact.errors import RegistryError
from didact.registry import Registry
from didact.tracking import default_uri
from tests.fakes.adapters import small_adapter
from tests.fakes.processes import begin, forking
from tests.fakes.verdicts import verdict_on

CHANGES = ("log_artifact", "log_text", "create_run", "create_registered_model", "create_model_version")
CHANGES += ("set_model_version_tag", "set_registered_model_tag", "set_registered_model_alias")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(default_uri(tmp_path_factory.mktemp("registry")))


class Ended(BaseException):
    """The process is gone: nothing catches this."""


class EndsAt:
    """MLflow's client, with the process ending before or after its Nth change."""

    def __init__(self, client: Any, number: int, after: bool, end: Any) -> None:
        self._client, self._left, self._after, self._end = client, number, after, end

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in CHANGES:
            return method

        def call(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                self._end()
            result = method(*args, **options)
            if self._left == 0 and self._after:
                self._end()
            return result

        return call


def end() -> None:
    raise Ended


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def register(uri: str, folder: Path, name: str, ends: tuple[int, bool, Any] | None = None) -> Any:
    registry = Registry(uri)
    if ends is not None:
        registry._client = EndsAt(registry._client, *ends)
    return registry.register(
        name, folder, run_id=None, tags={"recipe": "demo"}, card="# Card", alias="candidate", verdict=verdict_on(folder)
    )


def check_whole(registry: Registry, folder: Path, name: str, cache: Path) -> None:
    """One version, all tags, verdict, alias, and the registered bytes."""
    (version,) = registry.list(name)
    assert (version.version, version.aliases, version.tags["recipe"]) == (1, ("candidate",), "demo")
    assert registry.verdict(version) == verdict_on(folder)
    assert registry.download(version, cache).is_dir()


@pytest.mark.fault("M7")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_registration_that_ends_anywhere_is_finished_by_the_next(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    ended = 0
    for number in range(1, 40):
        name = f"ends-{'after' if after else 'before'}-{number}"
        folder = small_adapter(tmp_path / str(number), f"weights {number}".ljust(12))
        try:
            register(registry.uri, folder, name, (number, after, end))
        except Ended:
            ended += 1
            for version in registry.list(name):  # an alias only once everything else is in place
                if version.aliases:
                    check_whole(registry, folder, name, tmp_path / "cache")
            register(registry.uri, folder, name)
            check_whole(registry, folder, name, tmp_path / "cache")
            continue
        break
    assert ended >= 12, "every change of a registration was an end once"


@pytest.mark.fault("M7")
@pytest.mark.nightly
@pytest.mark.parametrize("number", [3, 8, 10, 13])
def test_a_registration_that_is_killed_is_finished_by_the_next(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    folder, name = small_adapter(tmp_path / "a", f"killed {number}".ljust(12)), f"killed-{number}"
    registers = begin(register, registry.uri, folder, name, (number, True, kill))
    registers.join()
    assert registers.exitcode == -signal.SIGKILL
    register(registry.uri, folder, name)
    check_whole(registry, folder, name, tmp_path / "cache")


def promoted(registry: Registry, version: int) -> str:
    try:
        registry.promote("raced", version, expected_current=None)
    except RegistryError as error:
        return "moved meanwhile" if "moved meanwhile" in str(error) else str(error)
    return "won"


def promote_when_told(uri: str, there: Connection) -> None:
    registry = Registry(uri)
    there.send("ready")
    there.recv()
    there.send(promoted(registry, 1))


@pytest.mark.fault("M8")
def test_of_two_promotions_at_once_one_wins_and_both_are_noted(registry: Registry, tmp_path: Path) -> None:
    for number in (1, 2):
        folder = small_adapter(tmp_path / str(number), f"raced {number}".ljust(12))
        registry.register("raced", folder, run_id=None, tags={}, card="", alias=None, verdict=verdict_on(folder))
    here, there = forking().Pipe()
    other = begin(promote_when_told, registry.uri, there)
    there.close()  # so that its end is heard
    try:
        assert here.recv() == "ready"
        here.send("go")
        mine, theirs = promoted(registry, 2), here.recv()
    finally:
        other.kill()
        other.join()
    assert sorted((mine, theirs)) == ["moved meanwhile", "won"]
    winner = registry.resolve("raced@champion").version
    assert winner == (2 if mine == "won" else 1)
    assert [(each.after, each.refused is None) for each in registry.moves("raced")] == [
        (winner, True),
        (3 - winner, False),
    ]
