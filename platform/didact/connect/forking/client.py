"""What Ray runs for a new worker in the place of its own script: has the fork server make it, or runs Ray's script.

Run by path and with the standard library alone, so that it takes a few hundredths of a second.
"""

import json
import os
import socket
import sys

_PATIENCE_SECONDS = 30.0
"""For the server to have imported everything; Ray gives a worker 60 to report."""


def _start() -> None:
    words = sys.argv[1:]
    given = {name: value for name, _, value in (word.partition("=") for word in words) if name.startswith("--")}
    own = [word for word in words if word.partition("=")[0] not in ("--serialized-runtime-env-context", "--language")]
    context = json.loads(given.get("--serialized-runtime-env-context") or "{}")
    plain = not any(context.get(name) for name in ("command_prefix", "override_worker_entrypoint"))
    plain = plain and context.get("py_executable") in (None, sys.executable) and given.get("--language") == "PYTHON"
    variables = {**os.environ, **context.get("env_vars", {})}
    plain = plain and variables.get("DIDACT_FORK") != "0"
    place = os.environ.get("DIDACT_FORK_SERVER")
    if not (plain and place and own and own[0].endswith("default_worker.py") and _forked(place, own, variables)):
        folder = os.path.dirname(next(word for word in words if word.endswith("_worker.py")))
        os.execv(sys.executable, [sys.executable, os.path.join(folder, "setup_worker.py"), *words])


def _forked(place: str, words: list[str], variables: dict[str, str]) -> bool:
    """Whether the server has made the worker; until it says that it is ready nothing is asked of it."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_PATIENCE_SECONDS)
            line.connect(place)
            if line.recv(1) != b"+":
                return False
            line.settimeout(None)
            asked = json.dumps({"words": words, "variables": variables, "folder": os.getcwd()}).encode()
            socket.send_fds(line, [len(asked).to_bytes(8, "big")], [0, 1, 2])
            line.sendall(asked)
            return line.recv(1) == b"+"
    except OSError:
        return False


if __name__ == "__main__":
    _start()
