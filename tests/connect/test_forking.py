"""Workers are forked from a process that has imported, or begun as Ray begins them; either way they are the same."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from didact.connect import begin_early, runtime_env
from didact.connect.forking import client, server, starting
from didact.connect.forking.server import decisive
from didact.connect.forking.starting import forking

_PLACE = Path(server.__file__)


def told(**options: object) -> dict[str, object]:
    """What an actor says of its process."""

    class Begun:  # inside a function, so that it travels by value
        def told(self) -> dict[str, object]:
            libraries = {name for name in ("torch", "peft", "transformers") if name in sys.modules}
            import random

            import torch

            return {
                "pid": os.getpid(),
                "parent": os.getppid(),
                "session": os.getsid(0),
                "libraries": libraries,
                "threads": torch.get_num_threads(),
                "sum": float(torch.ones(4, 4).matmul(torch.ones(4, 4)).sum()),
                "drawn": random.random(),
                "words": sys.argv[0],
                "told": os.environ.get("TOLD"),
            }

    actor = ray.remote(Begun).options(num_cpus=1, **options).remote()
    try:
        return dict(ray.get(actor.told.remote(), timeout=120))
    finally:
        ray.kill(actor)


@pytest.mark.ray
def test_workers_are_forked_and_differ_in_what_they_draw(local_ray: None) -> None:
    (mine,) = starting._SERVERS
    first, second = told(), told()
    for each in (first, second):
        assert each["parent"] == mine.process.pid and each["session"] == each["pid"]
        assert each["libraries"] == {"torch", "peft", "transformers"} and each["sum"] == 64.0
        assert str(each["words"]).endswith("default_worker.py")
    assert first["pid"] != second["pid"] and first["drawn"] != second["drawn"]
    deadline = time.monotonic() + 30
    while Path(f"/proc/{first['pid']}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{first['pid']}").exists(), "a killed fork is gone, and no zombie"


@pytest.mark.ray
def test_a_worker_that_begins_otherwise_is_begun_by_ray(local_ray: None) -> None:
    (mine,) = starting._SERVERS
    other = told(runtime_env={"env_vars": {"OMP_NUM_THREADS": "2", "TOLD": "yes"}})
    assert other["parent"] != mine.process.pid and (other["threads"], other["told"]) == (2, "yes")
    same = told(runtime_env={"env_vars": {"TOLD": "too"}})
    assert same["told"] == "too", "whoever began it"
    unwilling = told(runtime_env={"env_vars": {"DIDACT_FORK": "0"}})
    assert unwilling["parent"] != mine.process.pid


def test_what_decides_how_a_process_begins() -> None:
    told = {
        "OMP_NUM_THREADS": "1",
        "LD_PRELOAD": "x",
        "PYTHONPATH": "p",
        "HOME": "/h",
        "COLUMNS": "80",
        "RAY_JOB_ID": "1",
        "HF_TOKEN": "read when the hub is asked",
    }
    assert decisive(told).keys() == {"OMP_NUM_THREADS", "LD_PRELOAD", "PYTHONPATH", "HOME"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own").mkdir()
    yield tmp_path / "own" / "socket"


def begun(place: Path, *modules: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(_PLACE), str(place), *modules]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not place.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_a_fork_has_the_words_variables_folder_and_outputs_of_its_client(place: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys\n"
        "print(json.dumps([sys.argv, os.environ['TOLD'], os.getcwd(), __name__, 'decimal' in sys.modules]))\n"
    )
    process = begun(place, "decimal:Decimal")
    words = [sys.executable, str(_PLACE.with_name("client.py")), "--language=PYTHON", str(program), "a", "--b=c"]
    named = str(tmp_path / "default_worker.py")
    program.rename(named)
    words[3] = named
    variables = {**os.environ, "DIDACT_FORK_SERVER": str(place), "TOLD": "yes"}
    try:
        done = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, timeout=60, check=False)
        deadline = time.monotonic() + 20
        text = done.stdout.decode()
        assert done.returncode == 0, done.stderr
        while not text and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(text) == [[named, "a", "--b=c"], "yes", str(tmp_path), "__main__", True]
    finally:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
    assert not place.parent.exists(), "its folder goes with it"


def test_what_would_begin_threads_is_imported_without_any(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith(("OMP_", "OPENBLAS_", "MKL_"))]:
        monkeypatch.delenv(name)
    process = begun(place, "numpy", "pyarrow", "torch")
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(60)
            line.connect(str(place))
            assert line.recv(1) == b"+", "it waits for clients"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize("modules", [["begins_a_thread"], ["no_such_module"], ["json:nothing"]])
def test_a_server_that_cannot_fork_ends_and_refuses_nobody_silently(
    place: Path, tmp_path: Path, modules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "begins_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = begun(place, *modules)
    process.wait(30)
    assert client._forked(str(place), ["x"], dict(os.environ)) is False, "so its client runs Ray's own script"
    assert process.stdin is not None
    process.stdin.close()


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import ray_constants

    monkeypatch.setenv("DIDACT_FORK", "0")
    own = ray_constants.SETUP_WORKER_FILENAME
    with forking({}):
        assert own == ray_constants.SETUP_WORKER_FILENAME and "DIDACT_FORK_SERVER" not in os.environ


def test_a_command_begins_the_server_that_its_ray_then_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "_IMPORTED", ("json",))
    monkeypatch.setattr(starting, "_SERVERS", [])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    begin_early()
    (begun_first,) = starting._SERVERS
    try:
        monkeypatch.setenv("PYTHONBREAKPOINT", "ray.util.rpdb._driver_set_trace")  # as after a Ray before this one
        with starting.forking(runtime_env("another key")["env_vars"]):
            assert os.environ["DIDACT_FORK_SERVER"] == begun_first.place and len(starting._SERVERS) == 1
    finally:
        starting._end(begun_first)
    monkeypatch.setattr(starting, "_SERVERS", [])
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    begin_early()
    assert not starting._SERVERS, "the workers of that cluster are begun elsewhere"
