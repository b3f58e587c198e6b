"""A run on a real file system that fills up, or turns read-only, under it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from didact.errors import StorageError
from didact.training import StepReport
from tests.fakes.disks import Disk, small_disk
from tests.fakes.loops import Loop, run_loop
from tests.fakes.recipes import tiny_recipe


class After:
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self._step, self._act = step, act

    def on_start(self, start: int, num_steps: int) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        if report.step == self._step:
            self._act()

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    folder = tmp_path_factory.mktemp("unbroken")
    return run_loop(tiny_recipe(folder), folder / "checkpoints")


def breaks_and_goes_on(
    folder: Path, disk: Disk, unbroken: Loop, word: str, refuse: Callable[[], None], relent: Callable[[], None]
) -> None:
    """From step 6 on nothing can be written; the step-8 save fails, and all is well when the cause is gone."""
    spec, checkpoints = tiny_recipe(folder), disk.path / "checkpoints"
    with pytest.raises(StorageError, match=rf"step-00000008 cannot be written.*{word}.*run the same command") as failed:
        run_loop(spec, checkpoints, callbacks=lambda model: [After(6, refuse)])
    assert failed.value.exit_code == 75
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000004"], "litter, or the good one is gone"
    relent()
    resumed = run_loop(spec, checkpoints)
    assert resumed.start == 4 and resumed.lineage == unbroken.lineage[4:]
    assert all(torch.equal(weights, unbroken.weights[name]) for name, weights in resumed.weights.items())


@pytest.mark.fault("C5")
@pytest.mark.parametrize("leaving", [0, 20_000], ids=["nothing-left", "some-left"])
def test_a_disk_that_fills_up(tmp_path: Path, unbroken: Loop, leaving: int) -> None:
    with small_disk(tmp_path / "disk") as disk:
        breaks_and_goes_on(tmp_path, disk, unbroken, "No space", lambda: disk.fill(leaving), disk.make_room)


@pytest.mark.fault("C6")
def test_a_disk_that_turns_read_only(tmp_path: Path, unbroken: Loop) -> None:
    with small_disk(tmp_path / "disk") as disk:
        refuse, relent = (lambda mode=mode: disk.remount(mode) for mode in ("ro", "rw"))
        breaks_and_goes_on(tmp_path, disk, unbroken, "Read-only", refuse, relent)
