"""A whole search over three sources with a proxy on Ray: its runs, what it ranks, and what became of that."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from didact.cluster import has_trained
from didact.runs import Run
from didact.spec import SweepSpec, load_spec, to_json
from didact.tracking import effective_records
from didact.tuning import SweepResult, run_sweep
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]
NAMES, TRIALS, STEPS = ("sums", "word", "other"), 6, 8


@dataclass
class Searched:
    """A search that has come to its end."""

    method: str
    file: Path
    runs: Path
    result: SweepResult

    @property
    def folder(self) -> Path:
        return self.runs / "proxied"


@pytest.fixture(scope="module", params=["merge", "mixmin"])
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    folder = tmp_path_factory.mktemp(request.param)
    tiny_recipe(folder)
    for name, answer in (("word", "yes"), ("other", "no")):
        rows = [{"instruction": f"Say it for the {number}. time.", "output": answer} for number in range(40)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sources = [{"name": name, "path": str(folder / f"{name}.jsonl"), "held_out_rows": 6} for name in NAMES]
    training = {"training__steps": STEPS, "training__evaluate_every": STEPS, "training__learning_rate": 3e-2}
    (folder / "recipe.json").write_text(to_json(tiny_recipe(folder, data__sources=sources, **training)))
    sweep: dict[str, Any] = {
        "name": "proxied",
        "recipe": "recipe.json",
        "overrides": {"placement.num_workers": 1},
        "space": {"data.weights": {"mixture": {"floor": 0.05}}},
        "metric": "eval/word/loss",
        "searcher": "mixture",
        "scheduler": None,
        "num_trials": TRIALS,
        "proxy": {"method": request.param, "mixes": 20, "steps": 4},
    }
    file = folder / "search.json"
    file.write_text(json.dumps(sweep))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "runs"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = run_sweep(load_spec(SweepSpec, file), file, folder / "runs")
        yield Searched(request.param, file, folder / "runs", result)


def test_each_source_has_a_short_run_and_every_mixture_losses(searched: Searched) -> None:
    made = {name: Run(searched.folder / "proxy" / f"proxied-{name}") for name in NAMES}
    assert all(has_trained(run) for run in made.values())
    for name, run in made.items():
        records = effective_records(run.steps)
        rows = [each.partition("/")[0] for record in records for each in record.sample_ids or ()]
        assert len(records) == 4 and rows.count(name) > len(rows) / 2
        assert (rows.count(name) == len(rows)) == (searched.method == "mixmin"), "merge trains on the prior as well"
    kept = json.loads((searched.folder / "proxy.json").read_text())
    assert kept["named"] == ["uniform", "proportional"][: len(kept["named"])]
    solved = int(searched.method == "mixmin")
    assert len(kept["mixes"]) == len(kept["named"]) + 20 + solved
    assert all(
        {"eval/loss", *(f"eval/{name}/loss" for name in NAMES)} <= set(each["metrics"]) for each in kept["mixes"]
    )


def test_the_first_trials_show_whether_it_ranks_and_the_results_say_so(searched: Searched) -> None:
    trials = searched.result.trials
    assert len(trials) == TRIALS and all(trial.status == "finished" for trial in trials)
    kept = json.loads((searched.folder / "proxy.json").read_text())
    named = len(kept["named"])
    assert sum(trial.origin == "to calibrate the proxy" for trial in trials) == 4 - named
    said = json.dumps(json.loads((searched.folder / "results.json").read_text()))
    followed = [trial for trial in trials if trial.origin == "ranked best by the proxy"]
    assert "proxy: it ranks the first 4 trials" in said or "proxy: not followed, since" in said
    assert bool(followed) == ("not followed" not in said)


def test_the_same_command_does_nothing_more(searched: Searched) -> None:
    files = [*searched.folder.glob("*/*/steps.jsonl"), searched.folder / "proxy.json"]
    before = {file: file.read_bytes() for file in files}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(searched.file.parent / "cache"))
        again = run_sweep(load_spec(SweepSpec, searched.file), searched.file, searched.runs)
    assert [trial.name for trial in again.trials] == [trial.name for trial in searched.result.trials]
    assert len(before) == 3 + TRIALS + 1 and {file: file.read_bytes() for file in files} == before
