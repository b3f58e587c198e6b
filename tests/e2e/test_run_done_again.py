"""A run with Ray, and the same run again from what it recorded: equal to the bit."""

from pathlib import Path

import pytest

from didact.cluster import finetune
from didact.cluster.reproduce import reproduce
from didact.lineage import Records
from didact.lineage.reproduction import plan_reproduction
from didact.runs import record_of
from tests.fakes.lineage import same_weights
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(300)]


def test_a_run_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    monkeypatch.setenv("DIDACT_RUNS", str(runs))
    first = finetune(tiny_recipe(tmp_path, training__steps=4, evaluation=None))
    worker = record_of(first.run).workers[-1]
    assert (
        worker["device"] == "cpu"
        and worker["workers"] == first.run.spec().placement.max_workers
        and worker["packages"]["torch"]
    )
    assert "# tiny" in (first.run.adapter / "README.md").read_text()
    found = reproduce(plan_reproduction("tiny", Records(runs)))
    assert found.equal and found.run == runs / "tiny-again"
    assert [pair.difference for pair in found.steps] == [0.0] * 4
    assert same_weights(first.run, type(first.run)(found.run))
    assert '"equal": true' in (found.run / "reproduction.json").read_text()
