"""What a run must show before its adapter gets the alias, from its own folder to the registry."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from didact.adapter_folder import check_folder
from didact.errors import RegistryError, RunError
from didact.evaluation import EvalReport
from didact.registry import ModelVersion, Registry, Verdict
from didact.registry.publish import publish_run
from didact.runs import Run
from didact.spec import FinetuneSpec, RegisterSpec, validate
from didact.tracking import default_uri
from tests.fakes.finished import METRIC, finished_run
from tests.fakes.recipes import tiny_recipe
from tests.fakes.verdicts import KEY

Gate = dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, FinetuneSpec]:
    folder = tmp_path_factory.mktemp("gated")
    spec = tiny_recipe(folder, name="gated", training__steps=1, training__checkpoint_every=1)
    return finished_run(spec, folder / "runs"), spec


def publish(trained: tuple[Run, FinetuneSpec], name: str, gate: Gate) -> ModelVersion:
    run, spec = trained
    return publish_run(run, spec, validate(RegisterSpec, {"name": name, "gate": gate}, "register"), None)[1]


def test_the_verdict_names_all_that_it_judged(trained: tuple[Run, FinetuneSpec]) -> None:
    run, _ = trained
    version = publish(trained, "named", {METRIC: 1.0})
    verdict = Verdict.load(run.verdict)
    assert (version.aliases, version.gate) == (("candidate",), "passed")
    assert verdict.adapter_sha256 == version.adapter_sha256 == check_folder(run.adapter).sha256
    assert {"report", "questions", "answers"} <= verdict.judged.keys()
    assert verdict.policy["least"] == {METRIC: 1.0} and verdict.signature is None
    before = run.verdict.read_bytes()
    assert publish(trained, "named", {METRIC: 1.0}).version == 1
    assert run.verdict.read_bytes() == before, "the same verdict is not written anew"


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [
        ({METRIC: 2.0}, "failed"),
        ({"at_least": {METRIC: 1.0}}, "failed"),
        ({"at_least": {METRIC: 1.5}}, "passed"),
        ({"gain": {METRIC: 0.0}}, "failed"),  # a loss has no questions, so nothing is shown
        ({"no_worse": 0.1}, "failed"),
        ({"clean": True}, "failed"),
        ({"same_template": True}, "passed"),  # there is no champion yet
        ({}, "none"),
    ],
)
def test_each_check_decides(trained: tuple[Run, FinetuneSpec], gate: Gate, outcome: str) -> None:
    name = "check-" + "-".join(gate).replace("/", "-") + outcome + str(len(str(gate)))
    version = publish(trained, name, gate)
    assert version.tags["gate"] == outcome
    assert version.aliases == (() if outcome == "failed" else ("candidate",))


def test_an_adapter_of_another_template_is_no_candidate(trained: tuple[Run, FinetuneSpec], tmp_path: Path) -> None:
    publish(trained, "templates", {METRIC: 1.0})
    run, _ = trained
    registry = Registry(default_uri(run.path.parent), run.path.parent / "mlartifacts")
    registry.promote("templates", 1)
    other = tiny_recipe(
        tmp_path,
        name="other",
        training__steps=1,
        training__checkpoint_every=1,
        training__seed=9,
        tokens__template="alpaca",
    )
    other_run = finished_run(other, run.path.parent)
    version = publish((other_run, other), "templates", {METRIC: 1.0, "same_template": True})
    assert (version.version, version.aliases, version.tags["gate"]) == (2, (), "failed")
    line = next(check for check in Verdict.load(other_run.verdict).checks if check.check == "same_template")
    assert line.outcome == "failed" and "templates:1" in line.figure
    with pytest.raises(RegistryError, match="template contract"):
        registry.promote("templates", 2)


def test_a_signed_verdict_is_asked_for_where_a_key_is_set(
    trained: tuple[Run, FinetuneSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned = publish(trained, "keyed", {METRIC: 1.0})
    assert unsigned.aliases == ("candidate",)
    monkeypatch.setenv("DIDACT_VERDICT_KEY", KEY)
    run, _ = trained
    registry = Registry(default_uri(run.path.parent), run.path.parent / "mlartifacts")
    with pytest.raises(RegistryError, match="not signed"):
        registry.promote("keyed", 1)
    publish(trained, "keyed", {METRIC: 1.0})
    assert Verdict.load(run.verdict).is_signed_by(KEY.encode())
    assert registry.promote("keyed", 1).aliases == ("candidate", "champion")


def test_a_gate_on_figures_needs_an_evaluation(trained: tuple[Run, FinetuneSpec]) -> None:
    run, _ = trained
    report = EvalReport.load(run.report)
    run.report.unlink()
    try:
        with pytest.raises(RunError, match=r"no report\.json"):
            publish(trained, "unmeasured", {METRIC: 1.0})
    finally:
        replace(report).save(run.report)
