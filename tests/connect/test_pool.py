"""Actors that cannot begin: what is told, and that nobody waits for what never comes."""

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from didact.capacity import WorkerResources
from didact.connect import pool
from didact.connect.pool import ActorPool
from didact.errors import RunError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

ONE_CPU = WorkerResources(1, use_gpu=False)


def adder() -> type:
    """What a pool starts; travels by value, since workers find no test module."""

    class Adder:
        def __init__(self, first: int) -> None:
            self._first = first

        async def load(self) -> str:
            return "loaded"

        async def add(self, second: int) -> int:
            return self._first + second

    return Adder


def added(first: object, second: int) -> int:
    async def run() -> int:
        async with ActorPool(adder(), (first,), ONE_CPU, number=1, work="sum") as actors:
            assert actors.loaded == "loaded"
            found: int = await actors.call("add", second)
            return found

    return asyncio.run(asyncio.wait_for(run(), 120))


def test_who_waits_for_a_place_is_told_what_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "_PATIENCE_SECONDS", 0.5)
    there = int(ray.cluster_resources()["CPU"])
    held = placement_group([{"CPU": 1}] * there)
    assert held.wait(60)

    def free() -> None:
        while "for a worker" not in caplog.text:
            time.sleep(0.1)
        remove_placement_group(held)

    with caplog.at_level(logging.WARNING, logger="didact"):
        waits = threading.Thread(target=free, daemon=True)
        waits.start()
        assert added(2, 3) == 5
    told = next(each.getMessage() for each in caplog.records if "for a worker" in each.getMessage())
    assert told == f"the sum has waited 0.5 s for a worker (CPU: 1 asked, 0 of {there} free)"


def test_what_cannot_be_started_ends_who_waits_for_it() -> None:
    with pytest.raises(RunError, match="lock"):
        added(threading.Lock(), 3)


def sleeper() -> type:
    class Sleeper:
        def __init__(self, folder: Path) -> None:
            self._folder = folder

        async def load(self) -> None:
            """The first is ready at once, the second a while later."""
            try:
                (self._folder / "first").touch(exist_ok=False)
            except FileExistsError:
                await asyncio.sleep(2)

        async def work(self) -> int:
            await asyncio.sleep(4)
            return os.getpid()

    return Sleeper


@pytest.mark.parametrize("number", [1, 2])
def test_long_calls_go_to_actors_of_their_own_that_still_begin(tmp_path: Path, number: int) -> None:
    async def run() -> list[int]:
        async with ActorPool(sleeper(), (tmp_path,), ONE_CPU, number=number, work="sleep") as actors:
            return list(await asyncio.gather(*(actors.call("work", alone=True) for _ in range(2))))

    assert len(set(asyncio.run(asyncio.wait_for(run(), 120)))) == number
