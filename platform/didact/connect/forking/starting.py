"""The fork server of this process: begun with the first Ray that it starts, ended with it."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from didact import env
from didact.connect.forking.server import decisive
from didact.devices import sees_gpu

_HERE = Path(__file__).parent
_IMPORTED = (
    "didact.evaluation:held_out_result",
    "didact.evaluation:log_likelihoods",
    "didact.evaluation:task_texts",
    "didact.models:AdapterHost",
    "didact.models:compile_blocks",
    "didact.models:load_base",
    "didact.models:load_tokenizer",
    "didact.models:save_adapter",
    "didact.models:verify_adapter",
    "didact.preparation:run_job",
    "didact.preparation:prepare_data",
    "didact.runs:open_run",
    "didact.serving.engine:EmbeddedEngine",
    "didact.tokens:TemplateContract",
    "didact.tracking:last_attempt",
    "didact.training:train",
    "didact.training:trainable_model",
    "didact.training.fused:FusedTrials",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking.client",
    "pandas",
    "peft",
    "scipy.stats",
)
"""What workers of a run, a search or an evaluation import, and a trial's process. Not Ray, which reads variables when
it is loaded that differ from worker to worker."""


@dataclass(slots=True)
class _Server:
    process: "subprocess.Popen[bytes]"
    place: str
    begun_with: dict[str, str]


_SERVERS: list[_Server] = []


@contextlib.contextmanager
def forking(variables: Mapping[str, str]) -> Iterator[None]:
    """Have workers of a local Ray that is started inside the block forked, also after the block.

    Args:
        variables: of the workers' environment, beside this process's.
    """
    if not _can_fork():
        yield
        return
    from ray._private import ray_constants  # here: the server is begun before Ray is loaded

    server = _server(variables)
    own = ray_constants.SETUP_WORKER_FILENAME
    # Ray joins the name to the folder of its own; an absolute one stands alone.
    ray_constants.SETUP_WORKER_FILENAME = str(_HERE / "client.py")
    try:
        with env.setting("DIDACT_FORK_SERVER", server.place):
            yield
    finally:
        ray_constants.SETUP_WORKER_FILENAME = own


def begin(variables: Mapping[str, str]) -> None:
    """Begin the server now, for `forking` with these variables later."""
    if _can_fork():
        _server(variables)


def _can_fork() -> bool:
    return sys.platform == "linux" and env.forks_workers() and not sees_gpu()


def _server(variables: Mapping[str, str]) -> _Server:
    """The one of this process; another one where what decides how workers begin has changed."""
    given = {**env.inherited(), **variables}
    while _SERVERS:
        last = _SERVERS[-1]
        if last.process.poll() is None and last.begun_with == decisive(given):
            return last
        _end(_SERVERS.pop())
    place = os.path.join(tempfile.mkdtemp(prefix="didact-fork-"), "socket")
    process = subprocess.Popen(
        [sys.executable, str(_HERE / "server.py"), place, *_IMPORTED],
        env=given,
        stdin=subprocess.PIPE,  # ends with this process, however that ends, and the server with it
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process, which ends Ray
    )
    _SERVERS.append(_Server(process, place, decisive(given)))
    return _SERVERS[-1]


def _end(server: _Server) -> None:
    server.process.kill()
    server.process.wait()
    assert server.process.stdin is not None
    server.process.stdin.close()
    shutil.rmtree(os.path.dirname(server.place), ignore_errors=True)
