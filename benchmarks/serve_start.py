"""How long `didact serve` takes until it is ready, and until a replica that was killed answers again.

    PYTHONPATH=platform:. python -m benchmarks.serve_start [--rounds 3]

The bundled base on one replica of one thread, forked from a process that has imported (the default on Linux without a
GPU), beside one that imports by itself (`DIDACT_FORK=0`). Rounds alternate, medians count. Memory is the sum of `Pss`,
which splits pages among the processes that map them, over all processes of the server.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from benchmarks.soaking.server import Server, served
from didact.models import base_folder
from didact.spec import ModelSpec

_REPLICA = "ray::ServeReplica:didact:ModelReplica"
_FIGURES = ("ready, s", "ready, CPU s", "memory, MiB", "answers again, s")
_NAME = "base"
_WAYS = {"forked": "1", "imports itself": "0"}


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    settings = [f"model.base={base_folder(ModelSpec())}", f"model_name={_NAME}"]  # unpacked once, for all
    found: dict[str, list[tuple[float, ...]]] = {way: [] for way in _WAYS}
    for _ in range(rounds):
        for way, fork in _WAYS.items():
            os.environ["DIDACT_FORK"] = fork
            with tempfile.TemporaryDirectory() as folder:
                found[way].append(_measured(Path(folder), settings))
    print(f"| replica | {' | '.join(_FIGURES)} |\n|---|{'---:|' * len(_FIGURES)}")
    medians = {way: [statistics.median(each) for each in zip(*figures, strict=True)] for way, figures in found.items()}
    for way, figures in medians.items():
        print(f"| {way} | {' | '.join(f'{each:.1f}' for each in figures)} |")
    ratios = [own / other for own, other in zip(*medians.values(), strict=True)]
    print(f"| ratio | {' | '.join(f'{each:.2f}' for each in ratios)} |")


def _measured(folder: Path, settings: list[str]) -> tuple[float, ...]:
    began = time.monotonic()
    with served(folder, settings, replicas=1, threads=1) as server:
        ready = time.monotonic() - began
        processes = _processes(server)
        seconds = sum(sum(each.cpu_times()[:2]) for each in processes)
        memory = sum(each.memory_full_info().pss for each in processes) / 2**20
        if not _ask(server):
            raise SystemExit(f"the server does not answer: {server.log.read_text()[-2000:]}")
        for each in processes:
            if " ".join(each.cmdline()).startswith(_REPLICA):
                each.kill()
        killed = time.monotonic()
        while not _ask(server):
            time.sleep(0.1)
        return ready, seconds, memory, time.monotonic() - killed


def _processes(server: Server) -> list[psutil.Process]:
    own = psutil.Process(server.process.pid)
    return [own, *own.children(recursive=True)]


def _ask(server: Server) -> bool:
    """Whether a question is answered; each is another one, since that during which a replica died is refused."""
    message = {"role": "user", "content": f"What is {time.monotonic_ns()}?"}
    body = {"model": _NAME, "messages": [message], "max_tokens": 2}
    try:
        return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
