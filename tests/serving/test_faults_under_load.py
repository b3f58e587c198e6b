"""A whole server under load: aliases move, processes are killed, it is deployed anew. Who is not answered is told."""

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import psutil
import pytest
import ray
from ray import serve

from benchmarks.soaking.server import free_port, local_serve_file
from didact.connect import hand_over, new_key
from didact.models import base_fingerprint
from didact.registry import Registry
from didact.serving.app import application
from didact.serving.deploy import deploy, read_plan, with_environment
from didact.spec import ModelSpec
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.models import save_tiny_base

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(1200)]
SHORT, LONG = 8, 200
NUM_REPLICAS = 2
SECONDS = 200
"""For any state to come; nothing is as slow."""
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Server:
    """What runs, and what it should answer."""

    url: str
    config: Path
    settings: list[str]
    port: int
    registry: Registry
    expected: dict[tuple[str, int], str]
    """Text of a version's answer of so many tokens, when nothing else was asked."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    kind: Literal["answered", "told", "cut", "unreached"]
    """`told`: an error of the server's own, in a stream its last event; `cut`: a stream that ended without one."""
    said: str
    """The text; the code of an error."""
    version: str = ""
    begun: float = 0.0
    ended: float = 0.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two versions of `demo` on a tiny base, on two replicas."""
    folder = tmp_path_factory.mktemp("loaded")
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    base = save_tiny_base(folder / "tiny")
    fingerprint = base_fingerprint(ModelSpec(base=str(base)))
    for seed in (1, 2):
        save_tiny_adapter(folder / str(seed), seed, base_fingerprint=fingerprint)
        alias = "champion" if seed == 1 else None
        registry.register("demo", folder / str(seed), run_id=None, tags={"gate": "none"}, card="", alias=alias)
    config, port = local_serve_file(folder, NUM_REPLICAS), free_port()
    settings = [f"model.base={base}", f"tracking_uri={registry.uri}", "model.dtype=float32"]
    settings.append("registry_poll_seconds=0.2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "runs"))
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init("local", num_cpus=NUM_REPLICAS, include_dashboard=False, log_to_driver=False)
        try:
            with deploy(config, settings, port) as running, httpx.Client(base_url=running.url, timeout=SECONDS) as one:
                asked = itertools.product(("demo:1", "demo:2"), (SHORT, LONG))
                expected = {each: ask(one, each[0], each[1]).said for each in asked}
                yield Server(running.url, config, settings, port, registry, expected)
        finally:
            ray.shutdown()


def ask(client: httpx.Client, model: str, tokens: int) -> Outcome:
    """One question, which is like no other in what decides it, so that none is refused for another's sake."""
    number = next(NUMBERS)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0,
        "max_tokens": tokens,
        "stop": [f"never said {number}"],
        "stream": bool(number % 2),
    }
    begun = time.monotonic()
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            found = read(answer)
    except httpx.HTTPError as error:
        found = Outcome("unreached", type(error).__name__)
    return Outcome(found.kind, found.said, found.version, begun, time.monotonic())


def read(answer: httpx.Response) -> Outcome:
    version = answer.headers.get("x-didact-model-version", "").partition("#")[0]
    if not answer.headers["content-type"].startswith("text/event-stream"):
        answer.read()
        try:
            told = answer.json()
        except ValueError:
            return Outcome("cut", f"{answer.status_code} {answer.text[:200]}")
        if answer.status_code != 200:
            return Outcome("told", told["error"]["code"])
        return Outcome("answered", told["choices"][0]["message"]["content"], version)
    text = ""
    for line in answer.iter_lines():
        if line == "data: [DONE]":
            return Outcome("answered", text, version)
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return Outcome("told", event["error"]["code"])
            text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return Outcome("cut", text, version)


class Load:
    """Clients that ask `demo` one question after the other; a context manager."""

    def __init__(self, server: Server, clients: int, tokens: int = SHORT) -> None:
        self.outcomes: list[Outcome] = []
        self._server, self._tokens = server, tokens
        self._heard, self._stopped = threading.Condition(), threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def until(self, state: Callable[[Sequence[Outcome]], bool], more: int = 0) -> None:
        """Until something holds, looked at after each outcome, and `more` outcomes have come since now."""
        begun = len(self.outcomes)
        with self._heard:
            held = self._heard.wait_for(
                lambda: len(self.outcomes) >= begun + more and state(self.outcomes[begun:]), timeout=SECONDS
            )
        assert held, self.outcomes[-3:]

    def wrong(self) -> list[Outcome]:
        """Answers that are not what their version answers."""
        expected = self._server.expected
        return [
            each
            for each in self.outcomes
            if each.kind == "answered" and each.said != expected[each.version, self._tokens]
        ]

    def others(self) -> list[Outcome]:
        """What was not answered."""
        return [each for each in self.outcomes if each.kind != "answered"]

    def _ask_on(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=SECONDS) as client:
            while not self._stopped.is_set():
                outcome = ask(client, "demo", self._tokens)
                with self._heard:
                    self.outcomes.append(outcome)
                    self._heard.notify_all()
                if outcome.kind == "unreached":
                    self._stopped.wait(0.05)  # asking at full speed would keep a core from who is to come back


def processes(kind: str) -> dict[int, psutil.Process]:
    """Processes of this test's Ray, by their number; a replica is `ServeReplica:didact:NAME`."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            if child.cmdline() and child.cmdline()[0].startswith(f"ray::{kind}"):
                found[child.pid] = child
        except psutil.Error:  # it has just ended
            continue
    return found


def replicas() -> dict[int, psutil.Process]:
    return processes("ServeReplica:didact:ModelReplica")


def is_whole(gone: Sequence[int] = ()) -> bool:
    """Serve says that all replicas run, and none of them is one of those that were killed."""
    if len(replicas().keys() - set(gone)) < NUM_REPLICAS:
        return False
    try:
        states = serve.status().applications["didact"].deployments["ModelReplica"].replica_states
    except Exception:  # noqa: BLE001 - the controller itself may be away
        return False
    return {str(getattr(state, "value", state)): count for state, count in states.items()} == {"RUNNING": NUM_REPLICAS}


@pytest.mark.fault("S1")
def test_an_alias_that_moves_five_times_is_followed_by_everybody(server: Server) -> None:
    moves: list[tuple[float, int]] = []
    with Load(server, 8) as load:
        for version in (2, 1, 2, 1, 2):
            server.registry.promote("demo", version)
            moves.append((time.monotonic(), version))
            load.until(lambda since: any(each.version == f"demo:{version}" for each in since), more=200)  # noqa: B023
        moves.append((float("inf"), 0))
    assert not load.others() and not load.wrong() and len(load.outcomes) >= 1000
    for (moved, version), (until, _) in itertools.pairwise(moves):
        name = f"demo:{version}"
        seen = min(each.ended for each in load.outcomes if each.version == name and each.begun > moved)
        after = [each.version for each in load.outcomes if each.begun > seen and each.ended < until]
        assert set(after) <= {name}, "the old version answers after the new one has"


@pytest.mark.fault("S3")
def test_what_a_killed_replica_had_is_told_and_all_else_is_answered(server: Server) -> None:
    with Load(server, 8, LONG) as load:
        load.until(lambda since: True, more=24)
        gone = random.Random(3).choice(sorted(replicas()))
        replicas()[gone].kill()
        load.until(lambda since: is_whole([gone]), more=48)
    assert not load.wrong()
    assert {(each.kind, each.said) for each in load.others()} <= {("told", "engine_died")}
    assert len(load.others()) <= 8, "those that were in it, one of a client at most"


@pytest.mark.fault("S5")
def test_kills_one_after_the_other_cost_less_than_one_request_in_a_hundred(server: Server) -> None:
    chance = random.Random(5)
    with Load(server, 4) as load:
        load.until(lambda since: is_whole(), more=400)
        (gateway,) = processes("ServeReplica:didact:Gateway").values()
        before = gateway.memory_info().rss
        for _ in range(4):
            gone = chance.choice(sorted(replicas()))
            replicas()[gone].kill()
            load.until(lambda since: is_whole([gone]), more=400)  # noqa: B023
    assert not load.wrong()
    assert {(each.kind, each.said) for each in load.others()} <= {("told", "engine_died")}
    assert len(load.others()) <= 0.01 * len(load.outcomes)
    assert gateway.memory_info().rss <= 1.1 * before


@pytest.mark.fault("S4")
def test_without_the_controller_everybody_is_answered(server: Server) -> None:
    with Load(server, 4) as load:
        load.until(lambda since: True, more=40)
        ((gone, controller),) = processes("ServeController").items()
        controller.kill()
        load.until(lambda since: bool(processes("ServeController").keys() - {gone}) and is_whole(), more=200)
    assert not load.wrong() and not load.others()


@pytest.mark.fault("S4")
def test_a_killed_proxy_costs_open_connections_alone(server: Server) -> None:
    with Load(server, 4) as load:
        load.until(lambda since: True, more=40)
        ((gone, proxy),) = processes("ProxyActor").items()
        proxy.kill()
        load.until(lambda since: bool(processes("ProxyActor").keys() - {gone}) and since[-1].kind == "answered", more=8)
        load.until(lambda since: all(each.kind == "answered" for each in since), more=40)
    assert not load.wrong()
    assert {each.kind for each in load.others()} <= {"unreached"}


@pytest.mark.fault("S14")
def test_a_new_deployment_costs_no_request(server: Server) -> None:
    plan = read_plan(server.config, [*server.settings, "max_batch_size=8"], server.port)
    key = new_key()
    hand_over(key)
    old = replicas().keys()
    with Load(server, 8, LONG) as load:
        load.until(lambda since: True, more=24)
        serve.run(application(plan.spec, with_environment(plan, key)), name=plan.name, route_prefix=plan.route_prefix)
        load.until(lambda since: not replicas().keys() & old and is_whole(), more=48)
    assert not load.wrong() and not load.others()
