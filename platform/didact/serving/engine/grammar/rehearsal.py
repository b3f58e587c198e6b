"""Grammars are tried in a process of their own first: some take the library's whole stack, or come to no end, and would
take the server with them.

    text of a grammar -> Rehearsal.refusal -> None, or why it cannot be followed

This file is run as a program there too, by itself: it imports nothing of didact.
"""

import json
import select
import subprocess
import sys
import threading
from typing import Any

_MOST_BYTES = 4 * 2**30
"""Of memory, in the process that tries."""
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Rehearsal:
    """Tries grammars one at a time in a process that is started at the first one, and again after one that ended it."""

    def __init__(self, seconds: float) -> None:
        """
        Args:
            seconds: longest time for one grammar.
        """
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def refusal(self, text: str, limits: dict[str, Any]) -> str | None:
        """Why a grammar cannot be followed: it ends the process, or takes longer than it may. None where it can, or the
        library's own error says more than this would.

        Args:
            text: of the grammar, as llguidance reads it.
            limits: of `LLParserLimits`.
        """
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps([text, limits]).encode() + b"\n")
                process.stdin.flush()
                ready = select.select([process.stdout], [], [], self._seconds)[0]
                if ready and process.stdout.readline():
                    return None
            except OSError:
                ready = [process.stdout]  # it ended while it was told
            self._end()
        return "it cannot be followed: compiling it fails" if ready else f"it is not read in {self._seconds:g} seconds"

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            command = [sys.executable, "-I", "-S", __file__, *sys.path]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _try_all() -> None:
    """In the process that tries: a line for each grammar whose compiling came to an end, whatever it was."""
    import ctypes
    import resource
    import signal

    parent_ended = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    if parent_ended is not None:
        parent_ended(_DIES_WITH_PARENT, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import llguidance

    words = llguidance.LLTokenizer("byte")
    for line in sys.stdin.buffer:
        text, limits = json.loads(line)
        try:
            bounds = llguidance.LLParserLimits(**limits, verbose_errors=False)
            matcher = llguidance.LLMatcher(words, text, log_level=0, limits=bounds)
            if not matcher.is_error():
                matcher.compute_bitmask()
        except BaseException:  # noqa: BLE001 - whatever it is, the server finds it again and says it
            pass
        sys.stdout.write("tried\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path[:] = sys.argv[1:]
    _try_all()
