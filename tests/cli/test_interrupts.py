"""A command that is told to end: what its blocks see, what it says and returns, and what is left of it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from didact.cli import guarded
from didact.files import read_jsonl, write_text
from didact.interrupts import INTERRUPTS, Terminated, ending_in_order, own_handlers
from didact.spec import to_json
from tests.conftest import ROOT
from tests.fakes.models import save_tiny_base
from tests.fakes.recipes import tiny_recipe


def tell(number: int) -> None:
    os.kill(os.getpid(), number)
    while True:  # until the signal is heard
        pass


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "ended by SIGTERM\n"), (signal.SIGINT, 130, "interrupted\n")],
)
def test_blocks_unwind_and_the_code_is_that_of_the_signal(
    number: int, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(SystemExit) as ended, guarded():
        try:
            tell(number)
        except INTERRUPTS as error:
            seen.append(type(error))
            raise
    assert seen == [Terminated if number == signal.SIGTERM else KeyboardInterrupt]
    assert (ended.value.code, capsys.readouterr().err) == (code, said)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_exit_that_ray_makes_of_sigterm_while_it_waits_keeps_the_signals_code() -> None:
    with pytest.raises(Terminated), ending_in_order():
        try:
            tell(signal.SIGTERM)
        except Terminated:
            raise SystemExit(1) from None


def test_a_command_that_takes_sigterm_as_its_end_ends_well() -> None:
    with pytest.raises(SystemExit) as ended, guarded():
        with contextlib.suppress(Terminated):
            tell(signal.SIGTERM)
        raise SystemExit(0)  # as Typer ends every command
    assert ended.value.code == 0


def test_a_second_sigterm_does_not_disturb_the_end() -> None:
    ended = []
    with pytest.raises(Terminated), ending_in_order():
        try:
            tell(signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append(True)
    assert ended == [True]


def test_handlers_that_a_library_sets_are_taken_back() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(ValueError, match="of the library"), own_handlers():
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise ValueError("of the library")
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("block", [ending_in_order, own_handlers])
def test_other_threads_than_the_main_one_work_without(block: Callable[[], object]) -> None:
    done = []

    def work() -> None:
        with block():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.fixture()
def folder() -> Iterator[Path]:
    """Where all of a command's files go; its path must be short for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="d-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """A command in a session of its own, since tests may run where Ctrl-C is not heard."""
    paths = {"TMPDIR": folder, "DIDACT_RUNS": folder / "runs", "DIDACT_CACHE": folder / "cache"}
    variables = {
        **os.environ,
        **{name: str(path) for name, path in paths.items()},
        "PYTHONPATH": str(ROOT / "platform"),
    }
    heard = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; from didact.cli import main; main(sys.argv[1:])"
    with (folder / "printed.txt").open("w") as printed:
        command = [sys.executable, "-c", code, *words]
        return subprocess.Popen(command, cwd=folder, env=variables, stdout=printed, stderr=printed)


def wait_for(condition: Callable[[], bool], command: subprocess.Popen[bytes], folder: Path) -> None:
    """Until the command has come so far. It has the processor meanwhile."""
    until = time.monotonic() + 400
    while not condition():
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(0.1)
        assert command.poll() is None and time.monotonic() < until, (folder / "printed.txt").read_text()


def processes_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie, which is one
            if str(folder) in " ".join(process.cmdline()):
                found.append(process)
    return found


def ends(command: subprocess.Popen[bytes], number: int, folder: Path) -> tuple[int, str]:
    """Its code and last line, once it and all that it started are gone. Generous: a busy machine is slow."""
    command.send_signal(number)
    code = command.wait(60)
    _, left = psutil.wait_procs(processes_of(folder), timeout=30)
    assert not left
    printed = (folder / "printed.txt").read_text()
    assert "Traceback" not in printed and "*** SIG" not in printed, printed[-3000:]
    return code, printed.splitlines()[-1]


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 143, "ended by SIGTERM"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_run_ends_in_order_and_goes_on_later(folder: Path, number: int, code: int, said: str) -> None:
    write_text(folder / "recipe.json", to_json(tiny_recipe(folder, name="run", training__steps=100_000)))
    command, steps = start(folder, "train", "recipe.json"), folder / "runs/run/steps.jsonl"
    wait_for(lambda: steps.is_file() and bool(list(read_jsonl(steps))), command, folder)
    assert ends(command, number, folder) == (code, said)


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_in_order_and_leaves_its_port(folder: Path, number: int) -> None:
    base = save_tiny_base(folder / "tiny")
    config = str(ROOT / "serve" / "local.yaml")
    command = start(folder, "serve", config, f"model.base={base}", "--port", "18438")
    wait_for(lambda: "chat page" in (folder / "printed.txt").read_text(), command, folder)
    assert ends(command, number, folder)[0] == 0
