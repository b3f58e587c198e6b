"""Names, aliases that move, registries that fail."""

import logging
import threading
import time
from pathlib import Path

import pytest

from didact.errors import AdapterError, NotRegistered, RegistryError
from didact.registry import ModelVersion
from didact.serving.replica.catalog import Catalog
from tests.fakes.registry import ShelfRegistry


def catalog(registry: ShelfRegistry, refuse: tuple[int, ...] = (), prepared: list | None = None) -> Catalog:
    def prepare(version: ModelVersion) -> None:
        if version.version in refuse:
            raise AdapterError("damaged")
        if prepared is not None:
            prepared.append(version.version)

    return Catalog("tiny", registry, prepare, poll_seconds=60)


def means(names: Catalog, name: str) -> int | None:
    version = names.resolve(name).version
    return version.version if version else None


def test_an_alias_is_followed_after_its_version_was_prepared(registry: ShelfRegistry) -> None:
    prepared: list[int] = []
    names = catalog(registry, prepared=prepared)
    assert means(names, "tiny") is None
    assert (means(names, "demo"), means(names, "demo:1")) == (1, 1)
    registry.point("demo", "champion", 2)
    assert means(names, "demo") == 1
    names.refresh()
    assert prepared == [2]
    assert (means(names, "demo"), means(names, "demo:1")) == (2, 1)
    registry.point("demo", "champion", 1)
    names.refresh()
    assert means(names, "demo") == 1


def test_a_version_that_cannot_be_served_changes_nothing(
    registry: ShelfRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    names = catalog(registry, refuse=(2,))
    assert means(names, "demo") == 1
    registry.point("demo", "champion", 2)
    with caplog.at_level(logging.WARNING):
        names.refresh()
        names.refresh()
    assert means(names, "demo") == 1
    assert len([record for record in caplog.records if "demo:2" in record.getMessage()]) == 1


@pytest.mark.fault("S12")
def test_a_dead_registry_freezes_meanings(registry: ShelfRegistry, caplog: pytest.LogCaptureFixture) -> None:
    names = catalog(registry)
    means(names, "demo")
    names.refresh()
    registry.down = True
    registry.point("demo", "champion", 2)
    with caplog.at_level(logging.WARNING):
        names.refresh()
        names.refresh()
    assert means(names, "demo") == 1
    assert len(caplog.records) == 1
    assert [offer.version.name for offer in names.offers()] == ["demo"]
    with pytest.raises(RegistryError):
        names.resolve("demo:2")
    registry.down = False
    names.refresh()
    assert means(names, "demo") == 2


def test_a_removed_model_is_forgotten(registry: ShelfRegistry) -> None:
    names = catalog(registry)
    means(names, "demo")
    registry.remove("demo")
    names.refresh()
    with pytest.raises(NotRegistered):
        names.resolve("demo")


@pytest.mark.parametrize("name", ["nobody", "demo@nobody", "demo:7"])
def test_unknown_names_are_asked_for_once(registry: ShelfRegistry, name: str) -> None:
    names = catalog(registry)
    names.refresh()
    before = registry.questions
    for _ in range(3):
        with pytest.raises(NotRegistered):
            names.resolve(name)
    assert registry.questions == before + 1


def test_a_look_costs_the_same_however_many_versions_there_are(registry: ShelfRegistry, adapters: list[Path]) -> None:
    names = catalog(registry)
    for name in ("demo", "demo@champion", "demo:1"):
        names.resolve(name)
    costs = []
    for more in (0, 300, 300):
        for _ in range(more):
            registry.add("demo", adapters[2])
        before = registry.questions
        names.refresh()
        costs.append(registry.questions - before)
    assert costs == [1, 1, 1]
    registry.point("demo", "champion", 77)
    before = registry.questions
    names.refresh()
    assert registry.questions == before + 2  # the look, and that version once
    assert means(names, "demo") == 77


class Gated(ShelfRegistry):
    """Does not answer while its gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def _ask(self) -> None:
        self.gate.wait()
        super()._ask()


def test_known_names_never_wait_for_the_registry(adapters: list[Path]) -> None:
    registry = Gated()
    registry.add("demo", adapters[0], alias="champion")
    names = catalog(registry)
    names.start()
    try:
        assert means(names, "demo") == 1
        registry.gate.clear()
        waiting = [names.next_look(f"nobody{number}") for number in range(3000)]
        assert (means(names, "tiny"), means(names, "demo")) == (None, 1)
        assert names.meaning("nobody1") is None
        assert len(names._wanted) <= 1024
        waiting[0].cancel()  # its client left
        registry.gate.set()
        for each in waiting[1:]:
            each.result(timeout=20)
        with pytest.raises(NotRegistered):
            names.meaning("nobody2999")
    finally:
        registry.gate.set()
        names.close()


@pytest.mark.fault("S13")
def test_a_version_that_takes_long_to_prepare_holds_up_no_other_name(
    registry: ShelfRegistry, adapters: list[Path]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def prepare(version: ModelVersion) -> None:
        begun.set()
        go_on.wait()

    names = Catalog("tiny", registry, prepare, poll_seconds=0.01)
    names.start()
    try:
        assert means(names, "demo") == 1
        registry.point("demo", "champion", 2)
        assert begun.wait(20)
        registry.add("late", adapters[2])
        assert (means(names, "late"), means(names, "demo")) == (1, 1)
        go_on.set()
        deadline = time.monotonic() + 20
        while means(names, "demo") != 2:
            assert time.monotonic() < deadline
    finally:
        go_on.set()
        names.close()


def test_a_name_made_anew_means_its_new_versions(registry: ShelfRegistry, adapters: list[Path]) -> None:
    registry.point("demo", "candidate", 1)
    names = catalog(registry)
    first = names.resolve("demo@candidate").version
    registry.remove("demo")
    registry.add("demo", adapters[2], alias="candidate")
    registry.add("demo", adapters[1])
    names.refresh()
    assert first is not None
    assert names.resolve("demo@candidate").version.adapter_sha256 != first.adapter_sha256


@pytest.mark.parametrize(("name", "other"), [("demo", "demo:1"), ("demo@champion", "demo@candidate")])
def test_what_cannot_be_served_is_told_of_the_name_it_was_meant_for(
    registry: ShelfRegistry, name: str, other: str
) -> None:
    registry.point("demo", "candidate", 1)
    names = catalog(registry, refuse=(2,))
    names.resolve(name), names.resolve(other)
    registry.point("demo", "champion", 2)
    names.refresh()
    assert "demo:2 cannot be served: demo:2: damaged" in str(names.problem(name, registry.version("demo", 1)))
    assert names.problem(other, registry.version("demo", 1)) is None
    registry.point("demo", "champion", 1)
    names.refresh()
    assert names.problem(name, registry.version("demo", 1)) is None


@pytest.mark.parametrize("name", ["", "../demo", "demo@", "demo:x", "demo@latest", "de mo", "x" * 200, "demo:-1"])
def test_impossible_names_never_reach_the_registry(registry: ShelfRegistry, name: str) -> None:
    with pytest.raises(NotRegistered):
        catalog(registry).resolve(name)
    assert registry.questions == 0


def test_memory_of_names_is_bounded(registry: ShelfRegistry) -> None:
    names = catalog(registry)
    for number in range(1500):
        with pytest.raises(NotRegistered):
            names.resolve(f"nobody{number}")
    assert len(names._absent) == 1024


def test_offers_follow_the_rule_of_bare_names(registry: ShelfRegistry, adapters: list[Path]) -> None:
    registry.add("fresh", adapters[0])
    registry.add("fresh", adapters[1])
    registry.add("tried", adapters[0], alias="candidate")
    registry.add("tried", adapters[1])
    names = catalog(registry)
    names.refresh()
    offered = {offer.version.name: (offer.version.version, offer.aliases) for offer in names.offers()}
    assert offered == {"demo": (1, ("champion",)), "fresh": (2, ()), "tried": (1, ("candidate",))}
    assert {name: means(names, name) for name in offered} == {name: meant for name, (meant, _) in offered.items()}
