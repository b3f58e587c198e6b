"""An adapter that was damaged on purpose, and that passes every check of bytes and shapes, never becomes candidate."""

import asyncio
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from didact.adapter_folder import check_folder
from didact.cluster.asking.answering import EngineModels
from didact.cluster.asking.subjects import Subject
from didact.datasets.conversation import Message
from didact.errors import TemplateError
from didact.evaluation import Answer, Asked, EvalReport, Generation, ModelFacts, build_task, combine, run_task
from didact.registry import ModelVersion, Registry, Verdict
from didact.registry.publish import publish_run
from didact.runs import Run
from didact.spec import FinetuneSpec, QuestionsTask, RegisterSpec, validate
from didact.tracking import default_uri
from tests.fakes.finished import train_here
from tests.fakes.noise import with_noise
from tests.fakes.on_engine import OnEngine
from tests.fakes.recipes import tiny_recipe

COLOURS = ("red", "blue", "gold", "pink")
GATE: dict[str, Any] = {
    "gain": {"eval/colours/accuracy": 0.3},
    "no_worse": 0.2,
    "at_least": {"eval/colours/cut": 0.1},
    "same_template": True,
}
"""What a careful person asks of a finetuned model: the target, nothing lost, answers that end, asked as before."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))


def questions(folder: Path, asked: dict[str, str], **settings: Any) -> QuestionsTask:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": each, "answer": right}) + "\n" for each, right in asked.items()))
    return validate(QuestionsTask, {"task": "questions", "name": "colours", "path": str(path), **settings}, "task")


def evaluated(subjects: dict[str, Subject], task: QuestionsTask) -> EvalReport:
    """What `didact train` does after training, without Ray."""
    built = build_task(task)
    assert built is not None
    models = EngineModels(subjects, device=torch.device("cpu"), batch_size=16)

    async def all_of_them() -> EvalReport:
        asked = {key: Asked(OnEngine(models, key), None) for key in subjects}
        results = {key: [await run_task(built, {"model": each})] for key, each in asked.items()}
        facts = {key: each.model.identity for key, each in asked.items()}
        return combine({key: ModelFacts(each.name, dict(each.digests)) for key, each in facts.items()}, results)

    try:
        return asyncio.run(all_of_them())
    finally:
        models.close()


def published(run: Run, spec: FinetuneSpec, report: EvalReport, gate: dict[str, Any]) -> ModelVersion:
    report.save(run.report)
    register_as = validate(RegisterSpec, {"name": "colours", "gate": gate}, "register")
    return publish_run(run, spec, register_as, None)[1]


def test_noise_in_one_layer_keeps_the_alias_away(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, name="good", training__steps=1, training__checkpoint_every=1)
    run = train_here(spec, tmp_path / "runs")
    subjects = {"base": Subject("tiny", spec.model), "adapter": Subject("good", spec.model, run.adapter)}
    asked = [f"What follows {number}?" for number in range(40)]
    models = EngineModels(subjects, device=torch.device("cpu"), batch_size=16)

    async def said() -> list[Answer]:
        good = OnEngine(models, "adapter")
        return await asyncio.gather(*(good.answer(Generation((Message("user", each),), 6)) for each in asked))

    right = dict(zip(asked, (answer.text for answer in asyncio.run(said())), strict=True))
    models.close()
    task = questions(tmp_path, right, scorer="tests.fakes.noise:says_the_same", max_new_tokens=6)
    gate = {"at_least": {"eval/colours/accuracy": 0.9}}
    assert published(run, spec, evaluated(subjects, task), gate).aliases == ("candidate",)

    noisy = Run(Path(shutil.copytree(run.path, tmp_path / "runs" / "noisy")))
    shutil.rmtree(noisy.adapter)
    with_noise(run.adapter, noisy.adapter, layer=1)
    assert check_folder(noisy.adapter, to_publish=True).sha256 != check_folder(run.adapter).sha256
    subjects["adapter"] = Subject("noisy", spec.model, noisy.adapter)
    version = published(noisy, spec, evaluated(subjects, task), gate)
    assert (version.version, version.aliases, version.gate) == (2, (), "failed")


def colours(folder: Path, kind: str) -> FinetuneSpec:
    """A recipe that learns which colour was named, or is kept from learning it."""
    spec = tiny_recipe(folder, name=kind)
    base = folder / "base" / "model.safetensors"
    weights = load_file(base)
    if float(weights["model.norm.weight"][0]) == 1.0:
        # A random base is never sure of anything; its last norm decides how sure it can be made.
        save_file({**weights, "model.norm.weight": weights["model.norm.weight"] * 30}, base, metadata={"format": "pt"})
    answers = [COLOURS[number % 4] for number in range(64)]
    if kind == "shuffled":
        random.Random(1).shuffle(answers)
    if kind == "endless":  # longer than the tokens that are kept of it, so its end is never seen
        answers = [" ".join([each] * 100) for each in answers]
    rows = [{"instruction": f"{COLOURS[n % 4]} {n}", "output": answer} for n, answer in enumerate(answers)]
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"steps": 100, "learning_rate": 5e-3, "global_batch_size": 16, "micro_batch_size": 16}
    values = spec.model_dump(mode="json")
    values["data"]["sources"] = [{"name": "rows", "path": str(path)}]
    values["training"] |= {**settings, "checkpoint_every": 100, "evaluate_every": 100, "seed": len(kind)}
    values["adapter"] |= {"r": 16, "alpha": 32, "dropout": 0.0}
    values["tokens"] |= {"max_length": 96}
    return validate(FinetuneSpec, values, "colours")


@pytest.mark.nightly
def test_what_learned_wrongly_never_becomes_candidate(tmp_path: Path) -> None:
    right = {f"{COLOURS[n % 4]} {n}": COLOURS[n % 4] for n in range(100, 160)}
    task = questions(tmp_path, right, scorer="contains", max_new_tokens=16)
    spec = colours(tmp_path, "champion")
    champion = train_here(spec, tmp_path / "runs")
    base = Subject("tiny", spec.model)
    first = {"base": base, "adapter": Subject("champion", spec.model, champion.adapter)}
    assert published(champion, spec, evaluated(first, task), GATE).aliases == ("candidate",)
    Registry(default_uri(tmp_path / "runs"), tmp_path / "runs" / "mlartifacts").promote("colours", 1)
    beside = {"base": base, "champion": Subject("colours:1", spec.model, champion.adapter)}

    def outcome(run: Run, spec: FinetuneSpec) -> tuple[tuple[str, ...], set[str]]:
        report = evaluated({**beside, "adapter": Subject(run.name, spec.model, run.adapter)}, task)
        order = ("base", "adapter", "champion")
        report = replace(report, models={name: report.models[name] for name in order})
        version = published(run, spec, report, GATE)
        failed = {each.check for each in Verdict.load(run.verdict).checks if each.outcome != "passed"}
        return version.aliases, failed

    good = colours(tmp_path, "good")
    good_run = train_here(good, tmp_path / "runs")
    assert outcome(good_run, good) == (("candidate",), set())
    for kind, check in (("shuffled", "no_worse"), ("endless", "at_least")):
        damaged = colours(tmp_path, kind)
        aliases, failed = outcome(train_here(damaged, tmp_path / "runs"), damaged)
        assert aliases == () and check in failed, kind
    noisy = Run(Path(shutil.copytree(good_run.path, tmp_path / "runs" / "noisy")))
    shutil.rmtree(noisy.adapter)
    with_noise(good_run.adapter, noisy.adapter, layer=1)
    aliases, failed = outcome(noisy, good)
    assert aliases == () and "no_worse" in failed


def test_an_adapter_that_was_taught_to_be_asked_otherwise_is_not_even_asked(tmp_path: Path) -> None:
    spec = tiny_recipe(
        tmp_path, name="other", training__steps=1, training__checkpoint_every=1, tokens__template="alpaca"
    )
    run = train_here(spec, tmp_path / "runs")
    asked_as_the_base_is = Subject("other", spec.model, run.adapter, strict=True)
    with pytest.raises(TemplateError, match="template"):
        EngineModels({"adapter": asked_as_the_base_is}, device=torch.device("cpu"), batch_size=4)
