"""A finished run goes on to more steps or epochs: what is kept, what is said, what is refused."""

import json
from pathlib import Path

import pytest

from didact.errors import RunError
from didact.files import manifest, write_json, write_text
from didact.registry.card import Lineage
from didact.runs import Run, descents, go_on, start_run
from didact.spec import FinetuneSpec, to_json
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.recipes import tiny_recipe

ROWS = 40


def save_result(run: Run, spec: FinetuneSpec, seed: int) -> None:
    save_tiny_adapter(run.adapter, seed)
    write_text(run.adapter / "recipe.json", to_json(spec))
    record = json.loads((run.adapter / "adapter.json").read_text())
    record["files"] |= manifest(run.adapter, ["recipe.json"])
    write_json(run.adapter / "adapter.json", record)


def finished(folder: Path, **changes: object) -> Run:
    """A run as training leaves it."""
    spec = tiny_recipe(folder, **changes)
    run = start_run(spec, folder / "runs")
    save_result(run, spec, 1)
    write_json(run.report, {"figures": 1})
    run.report_page.write_text("<html>")
    return run


def longer(folder: Path, **changes: object) -> tuple[Run, FinetuneSpec]:
    spec = tiny_recipe(folder, **changes)
    return start_run(spec, folder / "runs"), spec


CONSTANT = {"training__schedule": "constant", "training__warmup_steps": 2}


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        ({"training__steps": 10, **CONSTANT}, {"training__steps": 25, **CONSTANT}, None),
        (
            {"training__steps": None, "training__epochs": 1, **CONSTANT},
            {"training__steps": None, "training__epochs": 2.5, **CONSTANT},
            None,
        ),
        (
            {"training__schedule": "constant", "training__warmup_share": 0.0},
            {"training__schedule": "constant", "training__warmup_share": 0.0, "training__steps": 30},
            None,
        ),
        ({}, {"training__steps": 20}, "followed the cosine schedule"),
        (
            {"training__schedule": "linear"},
            {"training__schedule": "linear", "training__steps": 20},
            "the linear schedule",
        ),
        (
            {"training__schedule": "constant", "training__warmup_share": 0.2},
            {"training__schedule": "constant", "training__warmup_share": 0.2, "training__steps": 20},
            "warm-up is a share",
        ),
    ],
)
def test_the_earlier_result_is_kept_and_the_descent_recorded(
    tmp_path: Path, before: dict[str, object], now: dict[str, object], why: str | None
) -> None:
    run = finished(tmp_path, **before)
    weights = (run.adapter / "adapter_model.safetensors").read_bytes()
    again, spec = longer(tmp_path, **now)
    descent = go_on(again, spec, ROWS)
    assert descent is not None and descents(run) == [descent]
    assert descent.exact is (why is None) and (why or "") in descent.why
    assert not run.adapter.exists() and not run.report.exists()
    aside = run.path / "earlier" / descent.before.replace(" ", "-")
    assert (aside / "adapter" / "adapter_model.safetensors").read_bytes() == weights
    assert {"report.json", "report.html"} <= {path.name for path in aside.iterdir()}
    assert go_on(again, spec, ROWS) is None  # nothing is left to put aside


def test_going_on_twice_is_recorded_twice(tmp_path: Path) -> None:
    run = finished(tmp_path, **CONSTANT)
    for steps in (20, 30):
        again, spec = longer(tmp_path, training__steps=steps, **CONSTANT)
        go_on(again, spec, ROWS)
        save_result(run, spec, steps)
    assert [(each.before, each.now) for each in descents(run)] == [("10 steps", "20 steps"), ("20 steps", "30 steps")]
    assert len({each.adapter_sha256 for each in descents(run)} - {None}) == 2


def test_the_same_length_and_an_unfinished_run_put_nothing_aside(tmp_path: Path) -> None:
    run = finished(tmp_path)
    again, spec = longer(tmp_path, training__checkpoint_every=2)
    assert go_on(again, spec, ROWS) is None and run.adapter.is_dir() and not descents(run)
    other = start_run(tiny_recipe(tmp_path, name="other"), tmp_path / "runs")
    again, spec = longer(tmp_path, name="other", training__steps=30)
    assert again == other and go_on(again, spec, ROWS) is None


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"training__steps": 5}, "exists with 10 steps, now 5 steps: a run can go on to more of the same, not back"),
        ({"training__steps": None, "training__epochs": 9}, "exists with 10 steps, now 9 epochs"),
        ({"training__steps": 20, "training__learning_rate": 0.5}, r"training\.learning_rate: was 0\.01, now 0\.5"),
        ({"training__steps": 20, "data__max_epochs": 9}, "data.max_epochs depends on the length of the run"),
    ],
)
def test_what_is_no_going_on_is_refused_and_changes_nothing(
    tmp_path: Path, now: dict[str, object], message: str
) -> None:
    run = finished(tmp_path)
    before = run.recipe.read_bytes()
    with pytest.raises(RunError, match=message):
        longer(tmp_path, **now)
    assert run.recipe.read_bytes() == before and run.adapter.is_dir()


def test_an_earlier_result_is_not_written_over(tmp_path: Path) -> None:
    run = finished(tmp_path)
    (run.path / "earlier" / "10-steps" / "adapter").mkdir(parents=True)
    again, spec = longer(tmp_path, training__steps=20)
    with pytest.raises(RunError, match="10-steps holds an earlier result already"):
        go_on(again, spec, ROWS)
    assert run.adapter.is_dir()


def test_the_registry_says_what_a_version_descends_from() -> None:
    facts = ("demo", "base", "a" * 64, "lora", "c" * 64, ())
    lineage = Lineage(*facts, descends_from="10 steps, adapter 1234")
    assert lineage.tags()["descends_from"] == "10 steps, adapter 1234"
    assert "descends_from" not in Lineage(*facts).tags()
