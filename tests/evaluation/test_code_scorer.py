import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from didact.datasets.conversation import Message
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers import build_scorer
from didact.evaluation.scorers.code import Outcome, python_in, run_confined
from didact.spec import CodeScorer

LIMITS = CodeScorer(name="code", seconds=1, memory_mb=256, file_mb=1)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits of Linux")
BOTH = pytest.mark.parametrize("kernel", [pytest.param(True, marks=linux), False], ids=["kernel", "fence"])


def score(text: str, **row: Any) -> Score:
    return build_scorer("code").score(Question("1", (Message("user", "?"),), data=row), text)


def test_code_is_right_when_it_passes_all_tests() -> None:
    tests = ["assert add(1, 2) == 3", "assert add(1, 1) == 2", "assert add(2, 2) == 5"]
    text = "Sure!\n```python\ndef add(a, b):\n    return a + b\n```\nUse it: `add(1, 2)`."
    assert score(text, tests=tests[:2]).values == {"accuracy": 1.0, "tests_passed": 1.0, "unread": 0.0}
    partly = score(text, tests=tests)
    assert partly.values == {"accuracy": 0.0, "tests_passed": pytest.approx(2 / 3), "unread": 0.0}
    assert partly.note == "a test failed: AssertionError: "
    assert partly.extracted == "def add(a, b):\n    return a + b\n"


def test_rows_as_in_humaneval_are_run() -> None:
    row = {
        "setup": "from math import sqrt\n\ndef root(x):\n    '''The square root.'''\n",
        "tests": "def check(candidate):\n    assert candidate(4) == 2\n",
        "entry_point": "root",
    }
    assert score("def root(x):\n    return sqrt(x)", **row).values["accuracy"] == 1
    assert score("def root(x):\n    return x", **row).values["accuracy"] == 0
    assert score("pass", **row).note == "a test failed: AssertionError: "


def test_what_holds_no_code_is_unread_and_a_row_without_tests_a_problem() -> None:
    assert score("I would add them.", tests="pass").values == {"accuracy": 0.0, "tests_passed": 0.0, "unread": 1.0}
    assert score("", tests="pass").values["unread"] == 1
    assert "no field `tests`" in str(score("x = 1").problem)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```\nx = \n```\n```py\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("x = 1", "x = 1"),
        ("```python\nx = \n```", "x = \n"),
        ("x = ", None),
        ("(" * 10_000, None),
        ("x = 1\0", None),
    ],
)
def test_the_first_block_that_is_python_is_taken(text: str, code: str | None) -> None:
    assert python_in(text) == code


def outcome(code: str, tests: tuple[str, ...] = ("pass",), kernel: bool = True) -> Outcome:
    return run_confined(code, tests, LIMITS, kernel=kernel)


@BOTH
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.system('true') and exit('refused')", "SystemExit: refused|PermissionError"),
        ("import os; os.execv('/bin/true', ['true'])", "PermissionError"),
        ("import multiprocessing as m; m.get_context('fork').Process(target=print).start()", "PermissionError"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "PermissionError"),
        ("import urllib.request as u; u.urlopen('http://127.0.0.1:9')", "PermissionError|URLError"),
        ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
        ("open('big', 'w').write('x' * 5_000_000)", "OSError"),
        ("x = [0] * 10**9", "MemoryError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("class E(Exception):\n  def __str__(self): raise self\nraise E", "E: (its message cannot be written"),
        ("def f(:", "SyntaxError"),
        ("x = '\\ud800'; print(x)", "UnicodeEncodeError"),
    ],
)
def test_what_a_program_must_not_do_fails(code: str, error: str, kernel: bool) -> None:
    found = outcome(code, kernel=kernel)
    assert found.tests == ()
    assert found.failure is not None
    assert any(found.failure.startswith(f"the code raised {each}") for each in error.split("|")), found.failure


@BOTH
@pytest.mark.parametrize("way", ["open({0!r}, 'a').write('x')", "__import__('os').remove({0!r})"])
def test_files_outside_stay_as_they_are(way: str, kernel: bool, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    found = outcome(way.format(str(mine)), kernel=kernel)
    assert "PermissionError" in str(found.failure)
    assert mine.read_text() == "mine"
    inside = "open('a.txt', 'w').write('x'); import os; os.rename('a.txt', 'b.txt'); os.remove('b.txt')"
    assert outcome(inside, kernel=kernel).tests == (None,)


@linux
def test_an_open_mode_or_owner_cannot_be_changed_either(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for way in ("chmod({0!r}, 0o777)", "chown({0!r}, 0, 0)", "setxattr({0!r}, 'user.a', b'x')"):
        assert "Error" in str(outcome(f"import os; os.{way.format(str(tmp_path))}").failure)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@linux
def test_c_code_gets_no_process_either() -> None:
    calls = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    clone3 = "assert (libc.syscall(435, 0, 0), ctypes.get_errno()) == (-1, 38)"
    fork = "assert (libc.fork(), ctypes.get_errno()) == (-1, 1)"
    assert outcome(calls, (clone3, fork)).tests == (None, None)


def test_nothing_is_left_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import threading, time\nopen('a.txt', 'w').close()\nthreading.Thread(target=time.sleep, args=(999,)).start()"
    )
    assert outcome(code).tests == (None,)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("endless", ["while True: pass", "import time; time.sleep(1000)"])
def test_endless_code_and_endless_waiting_are_stopped(endless: str) -> None:
    short = LIMITS.model_copy(update={"seconds": 0.3})
    stopped = ("stopped after 0.3 s of a processor", "stopped after 0.9 s by the clock")
    assert run_confined(endless, ("pass",), short).failure in stopped
    halfway = run_confined("", ("pass", endless, "pass"), short)
    assert halfway.tests == (None,)
    assert halfway.failure in stopped


def test_a_program_that_ends_its_process_or_floods_the_pipe_has_not_passed() -> None:
    assert outcome("import os; os._exit(0)").failure == "its process ended with status 0"
    forged = """
import json, os
for descriptor in range(3, 40):
    try:
        for _ in range(3000):
            os.write(descriptor, json.dumps({"seal": "0", "test": None, "end": True}).encode() + b"\\n")
    except OSError:
        pass
os._exit(0)
"""
    found = outcome(forged)
    assert (found.tests, found.failure) == ((), "its process ended with status 0")
    assert outcome("import os; assert os.read(0, 1) == b''").tests == (None,), "the seal can be read again"


def test_huge_output_and_libraries_with_threads_are_no_trouble() -> None:
    found = outcome("print('x' * 10**7); import numpy, threading\nassert numpy.ones(3).sum() == 3")
    assert found.tests == (None,), found.failure


def test_what_is_not_limited_is_said() -> None:
    assert outcome("", kernel=False).loose == (
        "writing outside the working folder by other means than Python's own",
        "sockets and other processes by other means than Python's own",
    )
