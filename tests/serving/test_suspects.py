"""Requests that were in an engine when it died."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from ray.exceptions import ActorUnavailableError, RayActorError

from didact.datasets.conversation import Message
from didact.registry import ModelVersion
from didact.serving.app import ended
from didact.serving.engine.protocol import AdapterRef, EngineDied, ReplicaLost, Sampling
from didact.serving.replica.backend import Ask, Backend, Event, Refusal
from didact.serving.replica.suspects import Suspects
from didact.serving.replica.worker import Worker
from tests.fakes.backends import FallibleBackend

ASK = Ask("1", "hello", None, max_new_tokens=4, timeout_seconds=60, sampling=Sampling(temperature=1, seed=1))
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


async def ask(suspects: Suspects, backend: Backend, wanted: Ask) -> list[Event]:
    return [event async for event in suspects.watch(wanted.mark, lambda: backend.ask(wanted))]


def refusals(suspects: Suspects, backend: Backend, *wanted: Ask) -> list[str]:
    async def together() -> list[list[Event]]:
        return await asyncio.gather(*(ask(suspects, backend, each) for each in wanted))

    last = [events[-1] for events in asyncio.run(together())]
    return [each.kind if isinstance(each, Refusal) else "" for each in last]


@pytest.mark.parametrize("end", [EngineDied("gone"), Refusal("died", "gone")], ids=["raised", "told"])
def test_the_like_of_a_request_that_an_engine_died_of_is_refused_for_a_while(end: Exception | Refusal) -> None:
    now = [0.0]
    inner = FallibleBackend({"hello": end})
    suspects = Suspects(clock=lambda: now[0])
    again = replace(ASK, request_id="2", sampling=replace(ASK.sampling, seed=5), timeout_seconds=7)
    other = replace(ASK, prompt="good day")
    assert refusals(suspects, inner, ASK) == ["died"]
    assert refusals(suspects, inner, again) == ["suspect"]
    assert refusals(suspects, inner, other) == [""]
    assert [each.prompt for each in inner.asked] == ["hello", "good day"]
    now[0] = 599
    assert refusals(suspects, inner, again) == ["suspect"]
    now[0] = 601
    inner.ends.clear()
    assert refusals(suspects, inner, again) == [""]


def test_those_that_were_there_beside_it_are_suspect_briefly_until_it_happens_again() -> None:
    now = [0.0]
    inner = FallibleBackend({"hello": EngineDied("gone"), "good day": EngineDied("gone")})
    suspects = Suspects(clock=lambda: now[0])
    other = replace(ASK, prompt="good day")
    assert refusals(suspects, inner, ASK, other) == ["died", "died"]
    now[0] = 61
    del inner.ends["good day"]
    assert refusals(suspects, inner, ASK, other) == ["died", ""]
    assert refusals(suspects, inner, ASK, other) == ["suspect", ""]
    now[0] = 200
    assert refusals(suspects, inner, ASK) == ["suspect"]


def test_a_request_that_was_not_begun_is_no_suspect() -> None:
    inner = FallibleBackend({"hello": ReplicaLost("gone")})
    suspects = Suspects()
    for _ in range(2):
        with pytest.raises(ReplicaLost):
            refusals(suspects, inner, ASK)
    assert len(inner.asked) == 2


def test_memory_of_suspects_is_bounded() -> None:
    suspects = Suspects()
    for number in range(4200):
        running = suspects._begin(str(number))
        suspects._suspect(running)
        suspects._running.remove(running)
    assert len(suspects._suspicions) == 4096


def test_marks_tell_requests_apart_by_all_that_an_engine_sees() -> None:
    version = ModelVersion("demo", 1, (), "a" * 64, None, "", {}, 0)
    changes = [
        {},
        {"prompt": "hello "},
        {"prompt": (1, 2)},
        {"prompt": (Message("user", "hello"),)},
        {"adapter": version},
        {"adapter": replace(version, version=2)},
        {"adapter": AdapterRef("demo:1#aa", Path("somewhere"))},
        {"max_new_tokens": 5},
        {"stop": ("x",)},
        {"sampling": Sampling(temperature=0.5)},
    ]
    assert len({replace(ASK, **each).mark for each in changes}) == len(changes)


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (
            RayActorError(error_msg="The actor is dead because its worker process has died."),
            EngineDied,
        ),
        (RayActorError(error_msg="The actor is dead because it was killed by `ray.kill`."), ReplicaLost),
        (RayActorError(error_msg="The node was taken away", preempted=True), ReplicaLost),
        (ActorUnavailableError("unavailable", None), EngineDied),
    ],
)
def test_a_replica_that_was_taken_away_accuses_nobody(error: RayActorError, meant: type[Exception]) -> None:
    assert type(ended(error)) is meant


class Counted:
    """A worker that remembers what it was asked."""

    def __init__(self, worker: Worker) -> None:
        self.asked: list[Ask] = []
        self.prepare, self.stats, self.facts = worker.prepare, worker.stats, worker.facts
        self._worker = worker

    def ask(self, wanted: Ask) -> AsyncGenerator[Event, None]:
        self.asked.append(wanted)
        return self._worker.ask(wanted)


def test_a_request_is_sent_once_when_the_engine_dies_with_it(
    worker: Worker, serve_worker: Callable[..., TestClient]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("device-side assert at /usr/lib/cuda")

    counted = Counted(worker)
    with serve_worker(counted) as client:
        assert post(client)[0] == 200
        worker.engine._base.register_forward_pre_hook(broken)
        assert post(client) == (500, "engine_died", "false")
        assert post(client) == (400, "engine_died_before", "false")
        assert len(counted.asked) == 2
        # The engine has ended: nothing is begun there any more, so another may be asked.
        assert post(client, stream=True, max_tokens=3) == (503, "replica_lost", None)
        assert len(counted.asked) == 4


def post(client: TestClient, **changes: object) -> tuple[int, str | None, str | None]:
    answer = client.post("/v1/chat/completions", json={**HELLO, **changes})
    return answer.status_code, answer.json().get("error", {}).get("code"), answer.headers.get("x-should-retry")
