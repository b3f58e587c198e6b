"""This side of vLLM's process: started, spoken with in lines of JSON, ended."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from didact import env
from didact.errors import DeviceError
from didact.logs import get_logger

_log = get_logger(__name__)
_SCRIPT = Path(__file__).with_name("vllm_process.py")
_TICK_SECONDS = 0.1
_END_SECONDS = 15.0
_KEPT_LINES = 200
_BLOCK = 2**20


class VllmLink:
    """vLLM in another process. Its messages come on a thread of this one."""

    def __init__(
        self, python: str | None, settings: Mapping[str, Any], variables: Mapping[str, str], timeout: float
    ) -> None:
        """Start vLLM and wait until it can answer.

        Args:
            python: see `VllmSpec.python`.
            settings: fields of vLLM's `AsyncEngineArgs`.
            variables: for the environment of its process.
            timeout: seconds.

        Raises:
            DeviceError: vLLM is not installed there, or cannot run on this machine.
        """
        self.python = find_vllm(python)
        self._ours, theirs = socket.socketpair()
        self._sending = threading.Lock()
        self._received = b""
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        with theirs:
            # -P and no PYTHONPATH: it must find the packages of its own environment, not those beside didact.
            command = [self.python, "-P", str(_SCRIPT), str(theirs.fileno())]
            self.process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=env.for_other_environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        self._listener = threading.Thread(target=self._listen, name="vllm-log", daemon=True)
        self._listener.start()
        self._thread: threading.Thread | None = None
        self._ending = False
        self.facts = self._wait_ready(settings, timeout)

    def start(
        self,
        take: Callable[[dict[str, Any]], None],
        tick: Callable[[], None],
        end: Callable[[str], None],
    ) -> None:
        """Hand messages on from now on.

        Args:
            take: gets each message, on the link's thread.
            tick: called ten times a second, on the same thread.
            end: called once with the reason when vLLM is gone.
        """
        self._thread = threading.Thread(target=self._run, args=(take, tick, end), name="vllm", daemon=True)
        self._thread.start()

    def send(self, **message: Any) -> None:
        """Send a message. One that cannot arrive is left out: `end` tells that vLLM is gone."""
        with self._sending, contextlib.suppress(OSError):
            self._ours.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """End vLLM and all its processes."""
        self._ending = True
        self.send(do="close")
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            _log.warning("vLLM did not end by itself in %.0f s and is killed", _END_SECONDS)
        self._kill()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._ours.close()

    def _kill(self) -> None:
        """Its engine and workers are processes of its group, which must not outlive it: they hold the GPU."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _wait_ready(self, settings: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        self.send(**settings)
        deadline = time.monotonic() + timeout
        reason = f"it was not ready after {timeout:.0f} s (vllm.start_timeout_seconds)"
        try:
            while time.monotonic() < deadline:
                for message in self._receive():
                    if ready := message.get("ready"):
                        return dict(ready)
                    if "dead" in message:
                        raise ConnectionError(message["dead"])
        except ConnectionError as error:
            reason = str(error)
        except BaseException:
            self._kill()
            raise
        self._kill()
        self._listener.join(_END_SECONDS)  # its last lines say why
        tail = "\n".join(f"  {line}" for line in _telling(self._said))
        raise DeviceError(f"vLLM did not start with {self.python}: {reason}{tail and chr(10)}{tail}")

    def _run(
        self, take: Callable[[dict[str, Any]], None], tick: Callable[[], None], end: Callable[[str], None]
    ) -> None:
        reason = "it was closed"
        try:
            while True:
                for message in self._receive():
                    if "dead" in message:
                        raise ConnectionError(message["dead"])
                    take(message)
                tick()
        except ConnectionError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - whoever waits for an answer must hear of it
            _log.exception("reading what vLLM says failed")
            reason = f"{type(error).__name__}: {error}"
        if not self._ending:
            _log.error("vLLM ended: %s", reason)
            self._kill()
        end(reason)

    def _receive(self) -> list[dict[str, Any]]:
        """The messages of one block, or none after a tick.

        Raises:
            ConnectionError: the other end is gone.
        """
        try:
            if not select.select([self._ours], [], [], _TICK_SECONDS)[0]:
                return []
            block = self._ours.recv(_BLOCK)
        except (OSError, ValueError) as error:
            raise ConnectionError(f"its socket broke ({type(error).__name__})") from error
        if not block:
            raise ConnectionError(f"its process ended with code {self._code()}")
        *lines, self._received = (self._received + block).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def _code(self) -> int | None:
        try:
            return self.process.wait(1)
        except subprocess.TimeoutExpired:
            return None

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            self._said.append(line.rstrip())
            _log.debug("vllm: %s", line.rstrip())


def find_vllm(python: str | None) -> str:
    """The Python that has vLLM.

    Raises:
        DeviceError: it is not there, or has no vLLM; says how to install it.
    """
    chosen = str(Path(python).expanduser()) if python else env.vllm_python() or sys.executable
    looked = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        found = subprocess.run(
            [chosen, "-P", "-c", looked], env=env.for_other_environment({}), capture_output=True, check=False
        )
    except OSError as error:
        raise DeviceError(f"{_from(python)} {chosen!r} cannot be run ({error.strerror}); {_HOW}") from None
    if found.returncode != 0:
        raise DeviceError(f"engine vllm: vLLM is not installed for {_from(python)} {chosen!r}; {_HOW}")
    return chosen


_HOW = (
    "install it in an environment of its own, on every node with replicas: `python -m venv vllm-env && "
    "vllm-env/bin/pip install vllm`, and set vllm.python=vllm-env/bin/python; or set engine=embedded"
)


def _from(python: str | None) -> str:
    if python:
        return "vllm.python"
    return "DIDACT_VLLM_PYTHON" if env.vllm_python() else "didact's own Python"


def _telling(lines: deque[str]) -> list[str]:
    """The lines of an error among much else that vLLM says."""
    return [line for line in lines if "ERROR" in line or "Error" in line][-8:]
