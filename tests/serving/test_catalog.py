"""Names, aliases that move, registries that fail."""

import logging
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
    for _ in range(3):
        with pytest.raises(NotRegistered):
            names.resolve(name)
    assert registry.questions == 1


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
