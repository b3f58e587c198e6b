"""Python code in a text, run with tests in a confined process of its own."""

import ast
import json
import os
import re
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers import confinement
from didact.evaluation.scorers.scorer import NamedScorer, field_of
from didact.logs import get_logger
from didact.spec import CodeScorer

_log = get_logger(__name__)
_FENCE = re.compile(r"```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_MOST_SAID = 1_000_000
_START_SECONDS = 60.0
_CLOCK = 3
"""So many times as long as a processor may work, a program may take by the clock: it may sleep, the machine be busy."""
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program and its tests."""

    tests: tuple[str | None, ...]
    """For each test that was reached what it raised, None where it passed."""
    failure: str | None
    """Why not all tests were reached; None where they were."""
    loose: tuple[str, ...]
    """What the program was not kept from on this machine."""
    began: bool = True
    """False where this machine did not even start it, which says nothing about the program."""


def code_scorer(spec: CodeScorer) -> NamedScorer:
    """Right when the code passes all tests of the row: `tests`, Python text or a list of such.

    The row may have `setup`, which runs before the code, and `entry_point`, a function that the test's own `check` is
    called with, as in HumanEval (Chen et al., 2021).
    """
    return NamedScorer(partial(_score, spec), "code, 1", reads="whole", same=None)


def _score(spec: CodeScorer, question: Question, text: str) -> Score:
    tests = tests_of(question)
    if not tests:
        return Score(problem="the row has no field `tests` with Python code")
    code = python_in(text)
    if code is None:
        return Score({"accuracy": 0.0, "tests_passed": 0.0, "unread": 1.0}, note="it holds no Python code")
    setup = field_of(question, "setup")
    outcome = run_confined(f"{setup}\n\n{code}" if isinstance(setup, str) else code, tests, spec)
    if not outcome.began:
        return Score(problem=f"the code was not run: {outcome.failure}")
    if outcome.loose:
        _say_once(outcome.loose)
    passed = sum(error is None for error in outcome.tests)
    raised = next((f"a test failed: {error}" for error in outcome.tests if error is not None), "")
    values = {"accuracy": float(passed == len(tests)), "tests_passed": passed / len(tests), "unread": 0.0}
    return Score(values, extracted=code, note=outcome.failure or raised)


def tests_of(question: Question) -> tuple[str, ...]:
    """The tests of a row, each a piece of Python."""
    tests, entry = field_of(question, "tests"), field_of(question, "entry_point")
    found = [tests] if isinstance(tests, str) else list(tests) if isinstance(tests, list | tuple) else []
    if isinstance(entry, str) and found:
        found = [f"{found[0]}\n\ncheck({entry})", *found[1:]]
    return tuple(each for each in found if isinstance(each, str) and each.strip())


def python_in(text: str) -> str | None:
    """The code of a text: its first block between fences that is Python, else its first block, else all of it."""
    blocks = [block for block in _FENCE.findall(text) if block.strip()]
    valid = (each for each in [*blocks, text] if each.strip() and _is_python(each))
    return next(valid, blocks[0] if blocks else None)


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


@cache
def _say_once(loose: tuple[str, ...]) -> None:
    _log.warning(f"scorer code: this machine does not keep answers from {', nor from '.join(loose)}; see docs")


def run_confined(code: str, tests: Sequence[str], limits: CodeScorer, *, kernel: bool = True) -> Outcome:
    """Run code, then each test in what it left behind, in a process without network, other processes or foreign files.

    A program that works against this file could forge that it passed: it shares its process with the tests.

    Args:
        code: the program.
        tests: each a piece of Python that raises where it fails.
        limits: time, memory and size of files.
        kernel: use what Linux offers; without it the fence of Python alone holds.
    """
    seal = secrets.token_hex(16)
    request = {
        **{"seal": seal, "code": code, "tests": list(tests), "seconds": limits.seconds, "kernel": kernel},
        **{"memory": limits.memory_mb * _MIB, "file": limits.file_mb * _MIB},
    }
    with tempfile.TemporaryDirectory(prefix="didact-code-", ignore_cleanup_errors=True) as folder:
        said, late, status = _run(request, folder, limits.seconds * _CLOCK)
    return _outcome([each for each in said if each.get("seal") == seal], late, status, limits)


def _run(request: dict[str, Any], folder: str, seconds: float) -> tuple[list[dict[str, Any]], bool, int]:
    """What a confined process said, whether it was stopped for its time by the clock, and how it ended."""
    reads, writes = os.pipe()
    with tempfile.TemporaryFile() as asked:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(Path(confinement.__file__)), str(writes)],
            stdin=asked,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1"},
            pass_fds=(writes,),
            start_new_session=True,
        )
    os.close(writes)
    try:
        said, late = _listen(reads, seconds)
    finally:
        os.close(reads)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    return said, late, status


def _listen(pipe: int, seconds: float) -> tuple[list[dict[str, Any]], bool]:
    """What is said over a pipe until its end, or so many seconds after the first word; and whether it was too late."""
    content, ends = b"", time.monotonic() + _START_SECONDS
    began = late = False
    with selectors.DefaultSelector() as waiting:
        waiting.register(pipe, selectors.EVENT_READ)
        while len(content) < _MOST_SAID:
            late = not waiting.select(max(ends - time.monotonic(), 0))
            piece = b"" if late else os.read(pipe, 65_536)
            if not piece:
                break
            content += piece
            if not began:
                began, ends = True, time.monotonic() + seconds
    return [each for line in content.splitlines() if isinstance(each := _record(line), dict)], late


def _record(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None  # cut off, or not ours


def _outcome(said: list[dict[str, Any]], late: bool, status: int, limits: CodeScorer) -> Outcome:
    loose = next((tuple(each["loose"]) for each in said if "loose" in each), None)
    if loose is None:
        return Outcome((), f"its process ended with status {status} before it began", (), began=False)
    tests = tuple(each["test"] for each in said if "test" in each)
    failure = next((each["code"] for each in said if each.get("code") is not None), None)
    if failure is not None:
        return Outcome((), f"the code raised {failure}", loose)
    return Outcome(tests, None if any("end" in each for each in said) else _end(late, status, limits), loose)


def _end(late: bool, status: int, limits: CodeScorer) -> str:
    if status == -signal.SIGXCPU:
        return f"stopped after {limits.seconds:g} s of a processor"
    if late:
        return f"stopped after {limits.seconds * _CLOCK:g} s by the clock"
    return f"its process ended with status {status}"
