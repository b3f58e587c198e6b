"""`didact serve` in a process of its own, as a user starts it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import httpx
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
STARTS, START_SECONDS = 5, 600


@dataclass(frozen=True)
class Server:
    """One that is ready."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def served(folder: Path, settings: Sequence[str], *, replicas: int, threads: int) -> Iterator[Server]:
    """A server; ends it.

    Args:
        folder: for its cache, its runs and its log.
        settings: fields of the serve file, as `field=value`.
        replicas: how many, from beginning to end.
        threads: of each replica.
    """
    environment = {**os.environ, "DIDACT_CACHE": str(folder / "cache"), "DIDACT_RUNS": str(folder / "runs")}
    environment |= {"PYTHONPATH": str(ROOT / "platform"), "OMP_NUM_THREADS": str(threads)}
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "DIDACT_API_KEYS", "DIDACT_KEYS"):
        environment.pop(name, None)
    config, port = local_serve_file(folder, replicas), free_port()
    words = [sys.executable, "-m", "didact.cli", "serve", str(config), *settings, "--port", str(port)]
    log = folder / "server.log"
    process = _started(words, environment, log, f"http://127.0.0.1:{port}")
    try:
        yield Server(f"http://127.0.0.1:{port}", process, log)
    finally:
        _end(process)


def free_port() -> int:
    """A port where nobody listens now."""
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local_serve_file(folder: Path, replicas: int) -> Path:
    """`serve/local.yaml` with replicas that stay, so that one answers while another comes back."""
    values = yaml.safe_load((ROOT / "serve" / "local.yaml").read_text())
    replica = next(each for each in values["applications"][0]["deployments"] if each["name"] == "ModelReplica")
    del replica["autoscaling_config"]
    replica["num_replicas"] = replicas
    config = folder / "serve.yaml"
    config.write_text(yaml.safe_dump(values))
    return config


def _started(words: list[str], environment: dict[str, str], log: Path, url: str) -> subprocess.Popen[bytes]:
    """The server, once it is ready. Ray gives itself half a minute to start, which a busy machine may not have."""
    for _ in range(STARTS):
        with log.open("wb") as told:
            process = subprocess.Popen(words, env=environment, stdout=told, stderr=told)
        try:
            if _is_ready(process, url):
                return process
        except BaseException:
            _end(process)
            raise
        _end(process)
        if "try again" not in log.read_text():
            break
    raise SystemExit(f"the server did not start:\n{log.read_text()[-4000:]}")


def _is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait for it; False where it ends or takes too long."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready", timeout=10).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
