"""A process that has imported what workers need, and forks itself for each that is asked for.

    python server.py PLACE MODULE[:NAME]...      ends when its standard input does

It has no thread of its own when it forks, or it refuses to.
"""

import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

_DECIDE = (
    *("LD_", "GLIBC_", "MALLOC_", "PYTHON", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "TORCH", "HF_", "TRANSFORMERS_"),
    *("HOME", "XDG_", "TMPDIR", "TZ", "LANG", "LC_"),
)
"""How variables begin that are read when a process begins or a library is loaded: a fork would not know of another."""

_READ_LATER = ("PYTHONBREAKPOINT", "HF_TOKEN")
"""Those of them that are read when they are needed. Ray sets the first in its drivers."""


@dataclass(frozen=True)
class _Asked:
    """A worker, as its client would have run it."""

    words: list[str]
    variables: dict[str, str]
    folder: str
    descriptors: list[int]


def serve(place: str, modules: list[str]) -> None:
    """Import, then fork whenever a client comes, until standard input ends."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place + ".new")
    listening.listen(64)
    os.rename(place + ".new", place)  # whoever finds it there is listened to
    try:
        asked = _prepared(modules) and _next(listening)
    finally:
        if os.getpid() == _SERVER:
            shutil.rmtree(os.path.dirname(place), ignore_errors=True)
    if asked:
        _become(asked)


def _prepared(modules: list[str]) -> bool:
    """Whether all was imported, without a thread: a lock that one holds would stay locked in a fork."""
    gc.disable()  # what is imported stays
    for each in modules:
        name, _, member = each.partition(":")
        module = importlib.import_module(name)
        if member:  # of a package that loads its parts when they are asked for
            getattr(module, member)
        if os.getppid() != _PARENT:  # it ended meanwhile
            return False
    gc.enable()
    gc.collect()
    gc.freeze()  # forks share the memory as long as the collector leaves it alone
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that have ended leave nothing behind
    return len(os.listdir("/proc/self/task")) == 1 and "ray" not in sys.modules


def _next(listening: socket.socket) -> _Asked | None:
    """Serve clients. Returns in each fork with what it is to become, and in the server when it is to end."""
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        line, _ = listening.accept()
        with line, contextlib.suppress(OSError, ValueError):  # a client that has given up meanwhile
            asked = _read(line)
            try:
                if asked is None or decisive(asked.variables) != _BEGAN:
                    line.sendall(b"-")
                    continue
                if os.fork() == 0:
                    listening.close()
                    return asked
                line.sendall(b"+")
            finally:
                if asked is not None and os.getpid() == _SERVER:
                    for each in asked.descriptors:
                        os.close(each)


def _read(line: socket.socket) -> _Asked | None:
    line.sendall(b"+")
    head, descriptors, _, _ = socket.recv_fds(line, 8, 3)
    if len(head) < 8:
        return None
    size, text = int.from_bytes(head, "big"), b""
    while len(text) < size:
        piece = line.recv(size - len(text))
        if not piece:
            return None
        text += piece
    return _Asked(**json.loads(text), descriptors=descriptors)


def decisive(variables: Mapping[str, str]) -> dict[str, str]:
    """Those variables that decide how a process begins and how libraries load."""
    return {name: value for name, value in variables.items() if name.startswith(_DECIDE) and name not in _READ_LATER}


def _become(asked: _Asked) -> None:
    """What Python does for `python WORDS...` before the program begins."""
    os.setsid()
    for each in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(asked.variables)
    os.chdir(asked.folder)
    for number, descriptor in enumerate(asked.descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = asked.words
    sys.path.insert(0, os.path.dirname(asked.words[0]))
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    try:
        runpy.run_path(asked.words[0], run_name="__main__")
    except Exception:  # noqa: BLE001 - as Python tells of a program's end
        traceback.print_exc()
        sys.exit(1)


_SERVER, _PARENT = os.getpid(), os.getppid()
_BEGAN = decisive(os.environ)
"""Before libraries that are imported write variables of their own."""

_THREADLESS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Where nothing else is said: libraries would begin threads while they are imported. Workers say themselves with how
many threads they compute (`torch.set_num_threads`)."""

if __name__ == "__main__":
    for _name, _value in _THREADLESS.items():
        os.environ.setdefault(_name, _value)
    del sys.path[0]  # this folder, which holds no module for others
    serve(sys.argv[1], sys.argv[2:])
