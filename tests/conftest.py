"""Paths and environment for all tests: no network, one thread, caches in a temporary folder."""

import contextlib
import functools
import gc
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parent.parent
for entry in (str(ROOT), str(ROOT / "platform")):
    if entry not in sys.path:
        sys.path.insert(0, entry)

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--llama-cpp", help="A llama.cpp source folder, to try its converter on an export")


def shared_data() -> Path:
    """The folder of real sample data beside the repository; skips the test where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real sample data is not at {folder}")
    return folder


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over files that name no mark which `-m` asks for: importing all of them takes a minute of processor time."""
    terms = config.option.markexpr.split(" and ")
    wanted = [term.strip() for term in terms if term.strip().isidentifier()]
    if not wanted or not collection_path.name.startswith("test_") or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text(encoding="utf-8")
    return any(f"mark.{mark}" not in text for mark in wanted) or None


@functools.cache
def starts_ray(file: Path) -> bool:
    """Whether a file of tests has some that start Ray."""
    return "mark.ray" in file.read_text(encoding="utf-8")


@functools.cache
def asks_for_local_ray(file: Path) -> bool:
    """Whether a file of tests has some that use the fixture `local_ray`."""
    return starts_ray(file) and "local_ray" in file.read_text(encoding="utf-8")


@functools.cache
def forks(file: Path) -> bool:
    """Whether a file of tests has some that fork processes from one that has imported."""
    text = file.read_text(encoding="utf-8")
    return "tests.fakes.processes" in text or "tests.fakes.workers" in text


class BesideRay(LoadFileScheduling):
    """One process of pytest-xdist takes the files that start Ray one after the other, others all the rest, then it too.

    So there is one Ray at a time, and what is computed elsewhere fills the time in which its tests wait. Files stay
    together, since their fixtures are made once for each; so do all that fork, since their fork server is of a process.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if starts_ray(ROOT / file):
            return "ray"
        return "forks" if forks(ROOT / file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BesideRay:
    """With `-n`, whatever `--dist` says."""
    return BesideRay(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect garbage seldom: a million objects of the imported libraries would be looked through again and again.

    That is a third of the time that importing all tests takes, and a twelfth of that of the tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Write rows of the fault table into the results, for benchmarks/faults.py.

    Files that start Ray come first, and of them those that share one.
    """
    items.sort(key=lambda item: (not starts_ray(item.path), not asks_for_local_ray(item.path)))
    for item in items:
        for mark in item.iter_markers("fault"):
            item.user_properties += [("fault", row) for row in mark.args]


@pytest.fixture(scope="session")
def process_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this process's tests; unpacked bases are shared with the other process that takes tests."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = folder.parent.parent / "models"
        shared.mkdir(exist_ok=True)
        (folder / "models").symlink_to(shared)
    return folder


def pytest_runtest_setup() -> None:
    from tests.fakes.mlflow_tables import make_tables_once

    make_tables_once()


@pytest.fixture(autouse=True)
def private_cache(process_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and runs of a test never touch the user's."""
    monkeypatch.setenv("DIDACT_CACHE", str(process_cache))
    monkeypatch.setenv("DIDACT_RUNS", str(process_cache.with_name("runs")))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


_LOCAL_RAY = contextlib.ExitStack()


@pytest.fixture(scope="module")
def local_ray() -> None:
    """A local Ray of two CPUs, without dashboard, for tests that need no cluster of their own.

    It is one for all files that ask for it and follow each other; `pytest_runtest_teardown` ends it.
    """
    import ray

    from didact.connect import ray_cluster

    if not ray.is_initialized():
        _LOCAL_RAY.enter_context(ray_cluster(num_cpus=2))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        if nextitem is None or not asks_for_local_ray(nextitem.path):
            _LOCAL_RAY.close()
