"""Shares that follow losses, on two workers: a killed one decides again alike, and `decided.yaml` repeats the run."""

from pathlib import Path

import pytest

from didact.cluster import finetune
from didact.preparation import DataFacts
from didact.runs import Run
from didact.spec import FinetuneSpec, load_spec
from didact.tracking import effective_records
from tests.fakes.lineage import executed, lineage, same_weights
from tests.fakes.recipes import tiny_recipe, write_sums

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("online")


def recipe(folder: Path, name: str) -> FinetuneSpec:
    sources = [{"name": each, "path": str(write_sums(folder / f"{each}.jsonl", rows=40))} for each in ("one", "other")]
    return tiny_recipe(
        folder,
        name=name,
        evaluation=None,
        data__sources=sources,
        data__online_mixing={"every_steps": 3, "temperature": 0.3},
        training__evaluate_every=None,
    )


@pytest.fixture(scope="module")
def unbroken(folder: Path, local_ray: None) -> Run:
    return finetune(recipe(folder, "unbroken"), folder / "runs").run


def draws(run: Run) -> list[tuple[int, dict[str, int]]]:
    return [(each.step, each.draws) for each in effective_records(run.steps) if each.draws]


def test_a_killed_worker_decides_again_alike(folder: Path, unbroken: Run) -> None:
    spec = recipe(folder, "killed")
    run_folder = folder / "runs" / spec.name
    run_folder.mkdir(parents=True)
    (run_folder / "failpoint").write_text("step-rank1:kill@7")
    run = finetune(spec, folder / "runs").run
    assert (run.path / "failpoint-1-struck").exists() and len(executed(run)) > 10
    assert [step for step, _ in draws(run)] == [3, 6, 9] and draws(run) == draws(unbroken)
    assert lineage(run) == lineage(unbroken) and same_weights(run, unbroken)


def test_what_was_decided_is_followed(folder: Path, unbroken: Run) -> None:
    run = finetune(load_spec(FinetuneSpec, unbroken.decided), folder / "runs").run
    assert run.name == "unbroken-again" and draws(run) == []
    assert lineage(run) == lineage(unbroken) and same_weights(run, unbroken)
    seen = [{each.name: each.samples_seen for each in DataFacts.read(made.data).sources} for made in (run, unbroken)]
    assert seen[0] == seen[1] and sum(seen[0].values()) == 80
