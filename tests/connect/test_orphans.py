"""What dead actors had reserved, without Ray's dashboard: without this the CPUs would be lost until the job ends."""

from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from didact.connect.orphans import free_orphans

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def reserving() -> Any:
    """An actor that has reserved a CPU, as the controller of a run does for its workers."""

    class Reserves:  # travels by value, since workers find no test module
        def reserve(self) -> bool:
            return bool(placement_group([{"CPU": 1}]).wait(60))

    actor = ray.remote(Reserves).options(num_cpus=0).remote()
    assert ray.get(actor.reserve.remote())
    return actor


def has_free(num_cpus: int, seconds: float) -> bool:
    """Whether so many CPUs can be had within a time."""
    group = placement_group([{"CPU": 1}] * num_cpus)
    try:
        return bool(group.wait(seconds))
    finally:
        remove_placement_group(group)


@pytest.mark.fault("T17")
def test_only_what_dead_actors_had_reserved_is_given_back() -> None:
    dies, lives = reserving(), reserving()
    own = placement_group([{"CPU": 1}])
    assert not own.wait(3)  # both CPUs are spoken for
    ray.kill(dies)
    assert own.wait(20)
    assert free_orphans() == 0
    assert not has_free(1, 3)  # of the driver and of the actor that lives
    ray.kill(lives)
    remove_placement_group(own)
    assert has_free(2, 20)
