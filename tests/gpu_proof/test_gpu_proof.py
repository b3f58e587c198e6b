"""Every check of the proof runs here with the CPU in the GPU's place; those that only a card can show say so."""

import json
import runpy
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils import logging as transformers_logging

from didact.devices import this_machine
from didact.gpu_proof import Check, Outcome, Unavailable, all_checks
from didact.gpu_proof.__main__ import main
from didact.gpu_proof.checks import distance, run_check

CPU = torch.device("cpu")
MINUTES_LONG = ("compile", "sharding")
CARD_ONLY = ("memory",)
CHECKS = [
    pytest.param(
        check, marks=[pytest.mark.nightly] if check.group in MINUTES_LONG else [], id=f"{check.group}: {check.name}"
    )
    for check in all_checks()
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("check", CHECKS)
def test_check_passes_with_the_cpu_in_the_gpus_place(check: Check) -> None:
    result = run_check(check, CPU)
    assert result.verdict != "failed", result.words
    assert result.verdict == "skipped" or check.group not in CARD_ONLY


def test_what_a_check_raises_is_its_result() -> None:
    def lacks(_device: torch.device) -> Outcome:
        raise Unavailable("no card")

    def breaks(_device: torch.device) -> Outcome:
        raise RuntimeError("first line\nsecond line")

    far, not_a_number = Outcome(2.0, 1.0), Outcome(float("nan"), 1.0)
    verdicts = [
        run_check(Check("group", "name", run), CPU).verdict
        for run in (lacks, breaks, lambda device: far, lambda device: not_a_number, lambda device: Outcome(1.0, 1.0))
    ]
    assert verdicts == ["skipped", "failed", "failed", "failed", "passed"]
    assert "RuntimeError: first line (test_gpu_proof.py:" in run_check(Check("group", "name", breaks), CPU).words


def test_a_result_that_is_not_finite_is_near_nothing() -> None:
    assert torch.tensor(distance(torch.tensor([1.0, float("inf")]), torch.ones(2))).isnan()


@pytest.fixture
def verbosity() -> Iterator[None]:
    """What the command sets for its process."""
    before = transformers_logging.get_verbosity()
    yield
    transformers_logging.set_verbosity(before)


@pytest.mark.usefixtures("verbosity")
def test_the_command_runs_checks_and_writes_them_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--device", "cpu", "--only", "recompute", "--json", str(tmp_path / "proof.json"))
    monkeypatch.setattr(sys, "argv", ["gpu_proof", *words])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        warnings.simplefilter("ignore", RuntimeWarning)  # that it was imported above as well
        runpy.run_module("didact.gpu_proof", run_name="__main__")
    assert ended.value.code == 0
    assert "3 passed, 0 failed, 0 skipped" in capsys.readouterr().out
    written = json.loads((tmp_path / "proof.json").read_text())
    assert [row["verdict"] for row in written["results"]] == ["passed"] * 3
    assert written["versions"]["torch"] == torch.__version__


@pytest.mark.skipif(bool(this_machine().gpus), reason="this machine has a GPU")
def test_without_a_gpu_everything_is_skipped_and_nothing_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "no GPU to prove anything on" in said
    assert f"{len(all_checks())} checks skipped" in said
    assert main(["--device", "cuda"]) == 2


def test_the_wheels_to_carry_are_those_that_the_tests_run_with() -> None:
    root = Path(__file__).parents[2]
    lines = (root / "constraints.txt").read_text().splitlines()
    pinned = {name.replace("_", "-"): version for name, version in (line.split("==") for line in lines if "==" in line)}
    listed = (root / "platform/didact/gpu_proof/bare_machine.txt").read_text().splitlines()
    packages = (line.partition("#")[0].strip().split("==") for line in listed if line[:1].isalnum())
    wanted = {name.replace("_", "-"): version for name, version in packages}
    same = {name: version for name, version in wanted.items() if name in pinned}
    assert len(same) >= 8
    assert {name: pinned[name] for name in same} == same
