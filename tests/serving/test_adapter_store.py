"""Adapters on this machine's disk: fetched once, and again when the cache was cleaned or spoiled."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from didact.errors import RegistryError
from didact.registry import ModelVersion
from didact.serving.replica.adapter_store import AdapterStore
from didact.serving.replica.backend import Ask, Refusal
from didact.serving.replica.worker import Delta
from tests.fakes.registry import ShelfRegistry
from tests.serving.conftest import open_worker


class CopyingShelf(ShelfRegistry):
    """Copies into the cache what is not there as it should be, as the registry does."""

    def download(self, version: ModelVersion, cache_dir: Path) -> Path:
        target = cache_dir / "adapters" / version.adapter_sha256
        source = super().download(version, cache_dir)
        names = {file.name for file in source.iterdir()}
        if not target.is_dir() or any(_bytes(target / name) != _bytes(source / name) for name in names):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        return target


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


@pytest.fixture()
def shelf(adapters: list[Path]) -> CopyingShelf:
    shelf = CopyingShelf()
    for name, folder in zip("abc", adapters, strict=True):
        shelf.add(name, folder)
    return shelf


def weights(folder: Path) -> Path:
    return folder / "adapter_model.safetensors"


SPOILED = {
    "folder": shutil.rmtree,
    "cache": lambda folder: shutil.rmtree(folder.parent),
    "file": lambda folder: weights(folder).unlink(),
    "cut": lambda folder: weights(folder).write_bytes(weights(folder).read_bytes()[:50]),
    "contract": lambda folder: (folder / "template_contract.json").unlink(),
    "more": lambda folder: (folder / "code.bin").write_bytes(b"0"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_what_was_removed_or_changed_in_the_cache_is_fetched_again(
    shelf: CopyingShelf, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    store, version = AdapterStore(shelf, tmp_path), shelf.resolve("a")
    before = store.fetch(version)
    asked = shelf.questions
    assert store.fetch(version) == before
    assert shelf.questions == asked
    spoil(before.folder)
    again = store.fetch(version)
    assert again == before
    assert shelf.questions == asked + 1
    assert _bytes(weights(again.folder)) == _bytes(weights(shelf._folders["a"][0]))


def test_a_version_in_memory_answers_when_cache_and_registry_are_gone(shelf: CopyingShelf, tmp_path: Path) -> None:
    a, b = shelf.resolve("a"), shelf.resolve("b")
    with open_worker(shelf, tmp_path, max_adapters=1) as worker:

        def ask(version: ModelVersion) -> str:
            async def answer() -> str:
                wanted = Ask(str(version), "abc", version, max_new_tokens=3, timeout_seconds=60)
                events = [event async for event in worker.ask(wanted)]
                last = events[-1]
                if isinstance(last, Refusal):
                    return last.kind
                return "".join(event.text for event in events if isinstance(event, Delta))

            return asyncio.run(answer())

        first = ask(a)
        shutil.rmtree(tmp_path / "adapters")
        shelf.down = True
        assert ask(a) == first
        assert ask(b) == "registry"
        shelf.down = False
        ask(b)  # now a has left memory
        assert ask(a) == first
        shelf.down = True
        shutil.rmtree(tmp_path / "adapters")
        assert ask(b) == "bad_adapter"
        shelf.down = False
        assert ask(b) != "bad_adapter"


def test_what_could_not_be_loaded_is_checked_when_next_asked_for(shelf: CopyingShelf, tmp_path: Path) -> None:
    store, version = AdapterStore(shelf, tmp_path), shelf.resolve("a")
    found = store.fetch(version)
    store.forget(found)
    asked = shelf.questions
    assert store.fetch(version) == found
    assert shelf.questions == asked + 1
    shelf.down = True
    store.forget(found)
    with pytest.raises(RegistryError):
        store.fetch(version)
