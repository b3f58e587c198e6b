"""What an actor had reserved is given back when it dies, also where nothing in it could.

    a trial is stopped -> its controller is killed -> its workers' placement group -> `freeing_orphans`, in the driver

Ray keeps a placement group until both the actor that asked for it and the whole job have ended. Ray Train gives groups
of a killed controller back by a process beside each run, which asks Ray's dashboard whether the controller lives: where
the dashboard does not answer, the next ones wait for ever. Ray's own table says the same, and this process reads it.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import ray
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import PlacementGroup, remove_placement_group

from didact.logs import get_logger

_LOG = get_logger(__name__)
_LOOK_SECONDS = 1.0


@contextlib.contextmanager
def freeing_orphans() -> Iterator[None]:
    """Inside the block, on a joined cluster, placement groups of this job's dead actors are given back."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_SECONDS):
            try:
                free_orphans()
            except Exception as error:  # noqa: BLE001 - Ray may be busy or about to end; the next look comes soon
                _LOG.debug("cannot see placement groups: %s: %s", type(error).__name__, error)

    thread = threading.Thread(target=look, name="orphaned placement groups", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def free_orphans() -> int:
    """Give back what dead actors of this process's job had reserved; returns how many placement groups."""
    job = ray.get_runtime_context().get_job_id()
    # The public table does not say who made a group and whether that lives.
    groups = map(PlacementGroupTableData.FromString, state._connect_and_get_accessor().get_placement_group_table())
    orphans = [each for each in groups if each.creator_job_id.hex() == job and _is_orphan(each)]
    for each in orphans:
        _LOG.debug("actor %s is gone; its placement group is given back", each.creator_actor_id.hex())
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(each.placement_group_id)))
    return len(orphans)


def _is_orphan(group: Any) -> bool:
    of_an_actor = group.creator_actor_id not in (b"", ray.ActorID.nil().binary())  # a driver's are said to be dead's
    there = group.state != PlacementGroupTableData.PlacementGroupState.REMOVED
    return bool(of_an_actor and group.creator_actor_dead and there and not group.is_detached)
