"""Run folders: created once, resumed with the same settings, refused with others."""

import json
from pathlib import Path

import pytest

from didact.errors import RunError
from didact.failpoints import read_failpoints
from didact.runs import check_name_is_free, open_run, start_run
from tests.fakes.recipes import tiny_recipe


def test_the_folder_holds_the_resolved_spec_and_provenance(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path)
    run = start_run(spec, tmp_path / "runs")
    assert open_run(run.path).spec() == spec
    record = json.loads((run.path / "provenance.jsonl").read_text())
    assert record["packages"]["torch"] and record["argv"]


@pytest.mark.fault("C9")
def test_starting_again_resumes_and_may_change_what_does_not_decide_the_weights(tmp_path: Path) -> None:
    run = start_run(tiny_recipe(tmp_path), tmp_path / "runs")
    again = start_run(tiny_recipe(tmp_path, placement__num_workers=1, training__checkpoint_every=2), tmp_path / "runs")
    assert again == run and again.spec().placement.num_workers == 1
    assert len((run.path / "provenance.jsonl").read_text().splitlines()) == 2


@pytest.mark.fault("C9")
@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"training__learning_rate": 0.5}, r"training\.learning_rate: was 0\.01, now 0\.5"),
        ({"data__seed": 7}, r"data\.seed: was 0, now 7"),
        ({"model__base": "other"}, r"model\.base: was '.*', now 'other'"),
        ({"tokens__max_length": 64}, r"tokens\.max_length: was 128, now 64"),
        ({"adapter__r": 8}, r"adapter\.r: was 4, now 8"),
    ],
)
def test_other_settings_under_the_same_name_are_refused_with_a_diff(
    tmp_path: Path, change: dict[str, object], difference: str
) -> None:
    run = start_run(tiny_recipe(tmp_path), tmp_path / "runs")
    before = run.recipe.read_bytes()
    with pytest.raises(RunError, match=difference):
        start_run(tiny_recipe(tmp_path, **change), tmp_path / "runs")
    assert run.recipe.read_bytes() == before


def test_a_name_that_a_sweep_or_a_study_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    for kind in ("sweep", "study"):
        (tmp_path / "runs" / "tiny" / f"{kind}.json").write_text("{}")
        with pytest.raises(RunError, match=rf"runs/tiny holds a {kind}; give the run another name"):
            start_run(tiny_recipe(tmp_path, name="tiny"), tmp_path / "runs")
        (tmp_path / "runs" / "tiny" / f"{kind}.json").unlink()
    run = start_run(tiny_recipe(tmp_path, name="tiny"), tmp_path / "runs")
    check_name_is_free(run.path, "run")
    with pytest.raises(RunError, match=r"runs/tiny holds a run; give the sweep another name"):
        check_name_is_free(run.path, "sweep")


def test_a_run_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    run = start_run(tiny_recipe(tmp_path), tmp_path / "runs")
    with run.lock(), pytest.raises(RunError, match="in use by another process"), run.lock():
        pass
    with run.lock():
        pass


def test_a_folder_without_recipe_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no recipe\.json"):
        open_run(tmp_path)


def test_a_failpoint_strikes_once_at_its_place(tmp_path: Path) -> None:
    assert read_failpoints(tmp_path) is None
    (tmp_path / "failpoint").write_text("step:raise@3\nstep-rank1:inf@4\nstep:raise@3\n")
    armed = read_failpoints(tmp_path)
    assert armed is not None
    assert armed.strike("step", 0, 2) is armed.strike("other", 0, 3) is armed.strike("step", 1, 3) is None
    for _ in range(2):  # two lines, two strikes
        with pytest.raises(RuntimeError, match="struck at 3"):
            armed.strike("step", 0, 3)
    assert armed.strike("step", 0, 3) is None
    assert armed.strike("step", 1, 4) == float("inf")


@pytest.mark.parametrize("line", ["step:explode@3", "step:kill", "step-rank:kill@3"])
def test_a_failpoint_that_means_nothing_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "failpoint").write_text(line)
    with pytest.raises(RunError, match=r"expected PLACE.-rankR.:ACTION@N"):
        read_failpoints(tmp_path)
