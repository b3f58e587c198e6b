"""A server under mixed load for as long as is asked, with processes killed meanwhile: answers, errors, memory.

    python benchmarks/soak.py --minutes 30 [--adapters 64] [--threads 1] [--base tiny] [--clients 6] [--kill-every 240]

`didact serve` with two replicas of eight places each; registered versions are asked for by a Zipf law, so that adapters
come and go. Clients ask over HTTP, plain and streamed; some leave in the middle, some send what no client should.
Champions move, versions are registered and withdrawn, replicas, proxy and controller are ended by SIGKILL in turn. One
replica is never killed: its memory is that of the whole soak.

Each whole greedy answer is compared with what the same version answers to the same prompt alone, computed beforehand in
this process. An error counts as explained by a kill only where it has the documented code and the kill fell into its
time. The exit code is 1 after a wrong answer or an error that nothing explains.
"""

import argparse
import math
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from mlflow import MlflowClient
from soaking.asking import PROMPTS, SECONDS, Outcome, ask_hostile, ask_known
from soaking.memory import Watch, processes
from soaking.world import World, register, running

WARM_SECONDS = 300.0
VICTIMS = ("ModelReplica", "proxy", "ModelReplica", "controller")
"""In turn."""
SUSPECTED_SECONDS = 660.0
"""How long the like of a request that an engine died of may be refused."""
BACK_SECONDS = 120.0
"""How long a killed process may be missed at most; on a machine with time to spare it is some ten seconds."""
FOLLOWED_SECONDS = 5.0
"""How long gateways may take to follow the registry."""
SHOWN = 20
"""Of wrong answers, and of errors that nothing explains."""


@dataclass(slots=True)
class Kill:
    """A process that was ended."""

    kind: str
    at: float
    back: float = math.inf
    """When the first request that came later had been answered."""


@dataclass
class Fleeting:
    """A name that is registered and withdrawn again and again."""

    name: str
    registered: float = 0.0
    withdrawn: float = 0.0


@dataclass
class Ledger:
    """What has happened; any thread may write to it."""

    expected: Mapping[tuple[str, int], str]
    """Content of a version and number of a prompt -> text."""
    base_name: str
    fleeting: dict[str, Fleeting]
    counts: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    hostile: Counter[str] = field(default_factory=Counter)
    versions: set[str] = field(default_factory=set)
    kills: list[Kill] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, outcome: Outcome) -> None:
        """Count a request, and print what is wrong with it."""
        with self._lock:
            self.counts["requests"] += 1
            self.counts["tokens"] += outcome.tokens
            if outcome.asked.startswith("hostile") and outcome.kind in ("answered", "refused") and outcome.status < 500:
                self.hostile["answered" if outcome.kind == "answered" else "refused in words"] += 1
            elif outcome.kind == "left":
                self.counts["left in the middle"] += 1
            elif outcome.kind == "answered":
                self._compare(outcome)
            else:
                self._explain(outcome)
            for kill in self.kills:
                if outcome.kind == "answered" and outcome.begun > kill.at:
                    kill.back = min(kill.back, outcome.ended)

    def _compare(self, outcome: Outcome) -> None:
        name, _, content = outcome.version.partition("#")
        asked = outcome.model
        fits = name == asked if ":" in asked or asked == self.base_name else name.partition(":")[0] == asked
        self.versions.add(outcome.version)
        assert outcome.prompt is not None
        expected = self.expected.get((content, outcome.prompt))
        if not fits or (expected is not None and outcome.said != expected):
            self.counts["wrong"] += 1
            self._show(
                "wrong",
                f"{asked} answered as {outcome.version} to prompt {outcome.prompt}: {outcome.said!r}; "
                f"expected {expected!r}",
            )
        elif expected is None:
            self.counts["not compared"] += 1
        else:
            self.counts["right"] += 1

    def _explain(self, outcome: Outcome) -> None:
        told = outcome.said if outcome.kind == "refused" else outcome.kind
        if why := self._why(outcome):
            self.explained[f"{told} ({why})"] += 1
            return
        self.counts["unexplained"] += 1
        seconds = outcome.ended - outcome.begun
        self._show(
            "unexplained",
            f"{outcome.asked} {outcome.model}: {outcome.kind} {outcome.status} {outcome.said} after {seconds:.1f} s",
        )

    def _why(self, outcome: Outcome) -> str | None:
        """What explains an error; None where nothing does."""

        def killed(kind: str, before: float = 0.5) -> list[Kill]:
            return [
                each for each in self.kills if each.kind == kind and outcome.begun - before <= each.at <= outcome.ended
            ]

        lost = {"engine_died": 0.5, "engine_died_before": SUSPECTED_SECONDS, "replica_lost": BACK_SECONDS}
        if outcome.kind == "refused" and outcome.said in lost and killed("ModelReplica", lost[outcome.said]):
            return "a replica was killed"
        away = any(outcome.begun <= each.back for each in killed("proxy", BACK_SECONDS))
        if outcome.kind in ("cut", "unreached", "broken") and away:
            return "the proxy was killed"
        fleeting = self.fleeting.get(outcome.model)
        if fleeting is not None and outcome.said == "model_not_found":
            gone = fleeting.withdrawn > fleeting.registered or outcome.begun < fleeting.registered + FOLLOWED_SECONDS
            return "it was withdrawn" if gone else None
        return None

    def _show(self, what: str, words: str) -> None:
        if self.counts[what] <= SHOWN:
            print(f"{what}: {words}", file=sys.stderr, flush=True)


class Soak:
    """Everything that goes on at once."""

    def __init__(self, world: World, ledger: Ledger, kill_every: float) -> None:
        self.world, self.ledger, self._kill_every = world, ledger, kill_every
        self._ended = threading.Event()
        self._failed: list[BaseException] = []
        self.counts: Counter[str] = Counter()
        """What was done to the registry."""

    def run(self, minutes: float, clients: int) -> None:
        """Until the time is over, or a part of the soak itself has failed."""
        tasks: list[Callable[[], None]] = [lambda seed=seed: self._client(seed) for seed in range(clients)]  # type: ignore[misc]
        tasks += [self._move, self._come_and_go, self._kill]
        threads = [threading.Thread(target=self._guarded, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 60 * minutes
        try:
            while time.monotonic() < until and not self._failed and self.world.process.poll() is None:
                self._ended.wait(min(60.0, max(until - time.monotonic(), 0.1)))
                told = ", ".join(f"{count:,} {name}" for name, count in sorted(self.ledger.counts.items()))
                print(f"{(until - time.monotonic()) / 60:.0f} minutes left: {told}", file=sys.stderr, flush=True)
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()
        if self._failed:
            raise self._failed[0]
        if (code := self.world.process.poll()) is not None:
            raise SystemExit(f"the server ended with {code}:\n{self.world.log.read_text()[-4000:]}")

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - told by `run`
            self._failed.append(error)

    def _client(self, seed: int) -> None:
        choose = random.Random(seed)
        versions = self.world.versions
        random.Random(0).shuffle(versions)
        weights = [1 / (rank + 1) for rank in range(len(versions))]
        with httpx.Client(base_url=self.world.url, timeout=SECONDS) as client:
            while not self._ended.wait(choose.expovariate(20)):
                (model,) = choose.choices(versions, weights)
                if choose.random() < 0.3:
                    model = choose.choice([self.world.base_name, model.partition(":")[0], model.partition(":")[0]])
                if choose.random() < 0.05:
                    model = choose.choice(list(self.ledger.fleeting))
                if choose.random() < 0.08:
                    self.ledger.note(ask_hostile(client, model, choose))
                    continue
                prompt, leave = choose.randrange(len(PROMPTS)), choose.random() < 0.1
                outcome = ask_known(client, model, prompt, choose, leave=leave)
                self.ledger.note(outcome)
                if outcome.kind == "unreached":  # asking at full speed would keep a core from who is to come back
                    self._ended.wait(0.5)

    def _move(self) -> None:
        """Champions move."""
        choose = random.Random("move")
        while not self._ended.wait(3):
            name, number = choose.choice(self.world.versions).split(":")
            self.world.registry.promote(name, int(number))
            self.counts["promoted"] += 1

    def _come_and_go(self) -> None:
        """Names are made, withdrawn, and made anew of other adapters."""
        client, choose = MlflowClient(self.world.registry.uri), random.Random("come and go")
        while not self._ended.wait(5):
            fleeting = choose.choice(list(self.ledger.fleeting.values()))
            if fleeting.withdrawn >= fleeting.registered:
                register(self.world.registry, fleeting.name, choose.choice(self.world.spare))
                fleeting.registered = time.monotonic()
                self.counts["registered"] += 1
            else:
                fleeting.withdrawn = time.monotonic()
                client.delete_registered_model(fleeting.name)
                self.counts["withdrawn"] += 1

    def _kill(self) -> None:
        """The replica that is killed is the younger one."""
        number = 0
        while not self._ended.wait(self._kill_every):
            kind = VICTIMS[number % len(VICTIMS)]
            found = [process for each, process in processes(self.world.process.pid) if each == kind]
            victim = max(found, key=psutil.Process.create_time)
            self.ledger.kills.append(Kill(kind, time.monotonic()))
            victim.kill()
            number += 1


def left_behind(world: World) -> int:
    """Rows that an engine still works at half a minute after the last client has gone."""
    until, left = time.monotonic() + 30, 1
    while left and time.monotonic() < until:
        told = [httpx.get(f"{world.url}/ready", timeout=SECONDS).json() for _ in range(20)]
        left = max(each.get("num_running", 1) + each.get("num_waiting", 1) for each in told)
    return left


def print_counts(soak: Soak, seconds: float, left: int) -> None:
    """What was asked and what came of it."""
    ledger = soak.ledger
    kills = Counter(kill.kind for kill in ledger.kills)
    rows: list[tuple[str, object]] = [
        ("minutes", f"{seconds / 60:.1f}"),
        ("requests", f"{ledger.counts['requests']:,}"),
        ("tokens generated for whole answers", f"{ledger.counts['tokens']:,}"),
        ("versions that answered", len(ledger.versions)),
        ("whole greedy answers, compared and right", f"{ledger.counts['right']:,}"),
        ("not compared (two tokens nearly alike)", f"{ledger.counts['not compared']:,}"),
        ("**wrong answers**", ledger.counts["wrong"]),
        ("clients that left in the middle", f"{ledger.counts['left in the middle']:,}"),
        *((f"hostile requests {what}", f"{count:,}") for what, count in sorted(ledger.hostile.items())),
        *((f"champions and names {what}", count) for what, count in sorted(soak.counts.items())),
        *((f"kills: {kind}", count) for kind, count in sorted(kills.items())),
        (
            "seconds from a kill to an answer, at most",
            f"{max((each.back - each.at for each in ledger.kills), default=0):.1f}",
        ),
        *((f"explained: {what}", count) for what, count in sorted(ledger.explained.items())),
        ("**unexplained errors**", ledger.counts["unexplained"]),
        ("rows left in an engine at the end", left),
    ]
    print("\n| | |\n|---|---:|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def print_memory(watch: Watch, warm: float, end: float) -> None:
    """What processes had, and how it moved."""
    print(f"\n| process | MiB at {warm / 60:.0f} minutes | at the end | MiB an hour | fitted processes |")
    print("|---|---:|---:|---:|---:|")
    for kind in watch.kinds():
        early, late = watch.at(kind, warm), watch.at(kind, end)
        trend = watch.trend(kind, warm)
        slope = "" if trend is None else f"{trend.slope:+.1f} ± {trend.error:.1f}"
        told = ("" if each is None else f"{each:.0f}" for each in (early, late))
        print(f"| {kind} | {' | '.join(told)} | {slope} | {trend.processes if trend else 0} |")
    print("\n| replica | from minute | to minute | MiB after 1 | after 5 | after 10 | after 20 | at its end |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for number, life in enumerate(watch.lives("ModelReplica"), 1):
        begin, last = life[0].second, life[-1]
        after = (next((each.mib for each in life if each.second >= begin + 60 * age), None) for age in (1, 5, 10, 20))
        told = ("" if each is None else f"{each:.0f}" for each in after)
        print(f"| {number} | {begin / 60:.1f} | {last.second / 60:.1f} | {' | '.join(told)} | {last.mib:.0f} |")


def main() -> int:
    """Start, ask alone, soak, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--adapters", type=int, default=64, help="registered versions, two of each name")
    parser.add_argument("--threads", type=int, default=1, help="of each replica")
    parser.add_argument("--base", default="tiny", help="tiny, bundled, or a folder")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--kill-every", type=float, default=240, help="seconds")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and registry; default: a temporary one")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended as well
    with ExitStack() as held:
        folder = asked.keep or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="didact-soak-")))
        world = held.enter_context(running(folder.absolute(), asked.base, asked.adapters, asked.threads))
        texts = len(set(world.expected.values()))
        print(
            f"{len(world.expected)} pairs of version and prompt are compared, {texts} texts",
            file=sys.stderr,
            flush=True,
        )
        ledger = Ledger(
            world.expected, world.base_name, {name: Fleeting(name) for name in ("fleeting-0", "fleeting-1")}
        )
        soak, watch, began = Soak(world, ledger, asked.kill_every), Watch(world.process.pid), time.monotonic()
        watch.start()
        soak.run(asked.minutes, asked.clients)
        seconds = time.monotonic() - began
        watch.stop()
        left = left_behind(world)
        print_counts(soak, seconds, left)
        print_memory(watch, min(WARM_SECONDS, seconds / 3), seconds)
        return int(bool(ledger.counts["wrong"] or ledger.counts["unexplained"] or left))


if __name__ == "__main__":
    sys.exit(main())
