"""Saving is cut off at every single touch of the file system; storage refuses; readers and the cleaner meet."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from didact.errors import StorageError
from didact.files import manifest_problems, new_folder
from didact.training import CheckpointStore, TrainedState
from didact.training.checkpoints import in_use

EVENTS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.scandir", "shutil.rmtree")


def state() -> TrainedState:
    weights = {"a": torch.ones(40, 40)}
    moments = {"step.a": torch.tensor(1.0), "exp_avg.a": torch.ones(40, 40), "exp_avg_sq.a": torch.ones(40, 40)}
    return TrainedState(weights, moments)


def store(folder: Path) -> CheckpointStore:
    return CheckpointStore(folder, keep=2, identity="one")


def child(work: Callable[[], None]) -> int:
    """Run in a forked process; its number."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; its wait status."""
    return os.waitpid(child(work), 0)[1]


def dying_at(event: int, folder: Path, work: Callable[[], object]) -> Callable[[], None]:
    """`work`, killed at the given touch of `folder`, counted from 1."""
    count = 0

    def on_event(name: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if name in EVENTS and str(args[0]).startswith(str(folder)):
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        sys.addaudithook(on_event)
        work()

    return run


def whole(folder: Path) -> bool:
    record = json.loads((folder / "MANIFEST.json").read_text())
    return not manifest_problems(folder, record["files"])


@pytest.mark.fault("C3")
def test_killed_at_every_point_of_a_save(tmp_path: Path) -> None:
    saved = state()
    events = 0
    for event in range(1, 100):
        folder = tmp_path / str(event)
        for step in (4, 8):
            store(folder).save(step, saved)
        status = in_child(dying_at(event, folder, lambda folder=folder: store(folder).save(12, saved)))
        found = store(folder).newest()  # the next start
        assert found is not None and found.step in (8, 12)
        assert all(whole(each) for each in folder.iterdir()), "a half-written checkpoint or a leftover"
        steps = {int(each.name.removeprefix("step-")) for each in folder.iterdir()}
        assert steps in ({4, 8}, {4, 8, 12}, {8, 12})
        store(folder).save(12, saved)
        assert {each.name for each in folder.iterdir()} == {"step-00000008", "step-00000012"}
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        events += 1
    assert events >= 12, "fewer points than a save has files, renames and removals"


@pytest.mark.fault("C6")
def test_storage_that_takes_nothing_more(tmp_path: Path) -> None:
    saved = state()
    store(tmp_path / "c").save(4, saved)
    told = tmp_path / "told"
    told.touch()
    told.chmod(0o666)
    (tmp_path / "c").chmod(0o555)

    def save_as_nobody() -> None:
        report = told.open("w")
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)  # permissions mean nothing to root
        try:
            store(tmp_path / "c").save(8, saved)
        except StorageError as error:
            report.write(f"{error.exit_code} {error}")
            report.close()

    assert in_child(save_as_nobody) == 0
    assert told.read_text().startswith("75 ") and "Permission denied" in told.read_text()
    (tmp_path / "c").chmod(0o755)
    found = store(tmp_path / "c").newest()
    assert found is not None and found.step == 4
    store(tmp_path / "c").save(8, saved)


@pytest.mark.fault("C7")
def test_a_checkpoint_in_use_is_not_dropped(tmp_path: Path) -> None:
    saved = state()
    for step in (4, 8):
        store(tmp_path).save(step, saved)
    reading, done = os.pipe(), os.pipe()

    def read_slowly() -> None:
        with in_use(tmp_path / "step-00000004"):
            os.write(reading[1], b"1")
            os.read(done[0], 1)
            assert whole(tmp_path / "step-00000004")

    pid = child(read_slowly)
    os.read(reading[0], 1)
    try:
        for step in (12, 16):
            store(tmp_path).save(step, saved)
        names = {each.name for each in tmp_path.iterdir()}
    finally:
        os.write(done[1], b"1")
        status = os.waitpid(pid, 0)[1]
    assert status == 0 and names == {"step-00000004", "step-00000012", "step-00000016"}
    store(tmp_path).save(20, saved)
    assert {each.name for each in tmp_path.iterdir()} == {"step-00000016", "step-00000020"}


@pytest.mark.fault("C5")
def test_a_folder_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    with new_folder(tmp_path / "adapter") as scratch:
        (scratch / "weights").write_text("old")
    with pytest.raises(OSError, match="No space"), new_folder(tmp_path / "adapter") as scratch:
        (scratch / "weights").write_text("new")
        with open("/dev/full", "w") as full:  # the kernel's own full disk
            full.write("x" * 9000)
    assert [each.name for each in tmp_path.iterdir()] == ["adapter"]
    assert (tmp_path / "adapter" / "weights").read_text() == "old"
