"""Evaluate a base and what was trained on it: the same questions to each, side by side on Ray.

tasks -> Answerers (a base and its adapters on Ray workers) -> run_task for each -> combine -> EvalReport
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from didact import env
from didact.capacity import WorkerResources
from didact.cluster.asking.answerers import Answerers
from didact.cluster.asking.endpoints import evaluate_endpoint
from didact.cluster.asking.loop import in_a_loop
from didact.cluster.asking.others import Others, check_others, with_preference
from didact.cluster.asking.subjects import HeldOutRows, Subject
from didact.cluster.placement import connected_cluster, worker_resources
from didact.connect import check_ray, ray_cluster
from didact.errors import SpecError
from didact.evaluation import (
    Asked,
    EvalReport,
    ModelFacts,
    Task,
    TaskReader,
    TaskResult,
    Watch,
    combine,
    run_task,
)
from didact.evaluation.asks import Role
from didact.evaluation.judge import Judged
from didact.evaluation.questions import ModelTokens, TokenTask
from didact.evaluation.report import ADAPTER, with_files
from didact.evaluation.speed import measure_speed
from didact.evaluation.tasks import check_tasks
from didact.models import load_tokenizer
from didact.preparation import with_seen
from didact.registry import locate_adapter, open_registry, recorded_base, whole_model
from didact.spec import (
    EvaluateSpec,
    EvaluationSpec,
    FinetuneSpec,
    HeldOutTask,
    PlacementSpec,
    TokensSpec,
    absolute_base,
    absolute_task_paths,
    load_spec,
)


def evaluate_on_ray(
    subjects: Mapping[str, Subject],
    evaluation: EvaluationSpec,
    resources: WorkerResources,
    rows: HeldOutRows | None = None,
    watch: Watch | None = None,
    *,
    speed: bool = False,
    tasks: TaskReader | None = None,
) -> EvalReport:
    """Run every task on every subject.

    Args:
        subjects: `base` first.
        evaluation: the tasks.
        resources: of a worker.
        rows: for the held-out task.
        watch: told of each question when it is scored.
        speed: measure besides how long answers take.
        tasks: what has read their questions already.

    Raises:
        DidactError: as raised by a task, with its own message.
    """
    reader = tasks or TaskReader()
    built = [reader.task(spec) for spec in evaluation.tasks]
    others = Others.of(evaluation, next(iter(subjects.values())))
    report = in_a_loop(_evaluate(subjects, built, others, evaluation.batch_size, resources, rows, watch, speed))
    return with_files(report, evaluation.tasks)


async def _evaluate(
    subjects: Mapping[str, Subject],
    tasks: list[Task | None],
    others: Others,
    batch_size: int,
    resources: WorkerResources,
    rows: HeldOutRows | None,
    watch: Watch | None,
    speed: bool,
) -> EvalReport:
    models: dict[str, ModelFacts] = {}
    results: dict[str, list[TaskResult]] = {}
    took: dict[str, TaskResult] = {}
    groups = _by_base(subjects)
    there = connected_cluster()
    # Known of all bases before the first question is asked.
    places = [others.num_places(subjects[keys[0]].model, resources, there) for keys in groups]
    for keys, num_places in zip(groups, places, strict=True):  # a base after another: each has all the room there is
        num_asks = len(keys) * max(1, *(len(task.questions) for task in tasks if task is not None), 0)
        base = subjects[keys[0]].model
        group = {key: subjects[key] for key in keys} | others.guests(base)
        num_asks = min(num_asks, batch_size * num_places)
        async with (
            Answerers(group, resources, batch_size=batch_size, num_asks=num_asks) as answerers,
            others.asked(answerers, base, resources, batch_size) as beside,
        ):
            asked = {key: Asked(answerers.model(key), env.cache_dir()) for key in keys}
            for key in keys:
                identity = asked[key].model.identity
                models[key], results[key] = ModelFacts(identity.name, dict(identity.digests)), []
            for task in tasks:
                measured = await asyncio.gather(
                    *(_measure(task, key, asked[key], beside, answerers, rows, watch) for key in keys)
                )
                for key, result in zip(keys, measured, strict=True):
                    results[key].append(result)
            for each in asked.values():
                each.close()
            if speed:
                took |= await measure_speed({key: answerers.model(key) for key in keys}, tasks)
    if took.keys() == results.keys():
        results = {key: [*each, took[key]] for key, each in results.items()}
    return combine({key: models[key] for key in subjects}, results)


async def _measure(
    task: Task | None,
    key: str,
    asked: Asked,
    beside: Mapping[Role, Asked],
    answerers: Answerers,
    rows: HeldOutRows | None,
    watch: Watch | None,
) -> TaskResult:
    if task is not None:
        who: dict[Role, Asked] = {"model": asked, **(beside if isinstance(task, Judged) else {})}
        return with_preference(await run_task(_in_tokens(task, key, answerers), who, watch), who)
    if rows is None:
        raise SpecError(
            "evaluation.tasks asks for held_out, whose rows only a trained adapter's recipe names; set adapter"
        )
    return await answerers.held_out(key, rows)


def _in_tokens(task: Task, key: str, answerers: Answerers) -> Task:
    """Tasks that ask in token ids are given the subject's own."""
    if not isinstance(task, TokenTask):
        return task
    facts = answerers.facts[key]
    tokenizer = load_tokenizer(answerers.subjects[key].model)
    return task.with_tokens(ModelTokens(tokenizer, facts.contract, facts.context_length))


def _by_base(subjects: Mapping[str, Subject]) -> list[list[str]]:
    groups: list[list[str]] = []
    for key, subject in subjects.items():
        known = next((group for group in groups if subjects[group[0]].model == subject.model), None)
        if known is None:
            groups.append([key])
        else:
            known.append(key)
    return groups


def evaluate_adapter(spec: EvaluateSpec, watch: Watch | None = None) -> EvalReport:
    """A stand-alone evaluation: a base, and beside it what was trained on it, by folder or registered name.

    A run that trained the whole base is measured by the model that it left. Or a model behind an address.

    Raises:
        SpecError: held-out losses are asked but the adapter does not come from a run folder.
    """
    if spec.endpoint is not None:
        return evaluate_endpoint(spec.endpoint, spec.evaluation, watch)
    check_others(spec.evaluation)
    evaluation = absolute_task_paths(spec.evaluation)
    tasks = check_tasks(evaluation)
    check_ray()
    folder, whole = _found(spec.adapter) if spec.adapter else (None, False)
    recipe_file = folder / "recipe.json" if folder else None
    recipe = load_spec(FinetuneSpec, recipe_file) if recipe_file and recipe_file.is_file() else None
    measures_losses = any(isinstance(task, HeldOutTask) for task in spec.evaluation.tasks)
    if recipe is None and measures_losses:
        raise SpecError(
            "evaluation.tasks asks for held_out, whose rows only a trained adapter's recipe names; set adapter"
        )
    asked = recorded_base(folder) if folder and "model" not in spec.model_fields_set else spec.model
    model = absolute_base(asked)
    base = Subject(model.base, model, tokens=recipe.tokens if recipe else TokensSpec())
    subjects = {"base": base}
    if folder is not None:
        subjects["adapter"] = trained_subject(base, folder, str(spec.adapter), whole=whole)
    subjects |= {name: _beside(name, base, measures_losses) for name in spec.beside}
    with ray_cluster():
        rows = HeldOutRows(recipe) if recipe else None
        report = evaluate_on_ray(subjects, evaluation, worker_resources(PlacementSpec()), rows, watch, tasks=tasks)
    return with_seen(report, ADAPTER, recipe, tasks.texts) if recipe else report


def _found(reference: str) -> tuple[Path, bool]:
    """The folder of what was trained, and whether it is a whole model."""
    whole = whole_model(reference)
    return (whole, True) if whole is not None else (locate_adapter(reference, open_registry()), False)


def _beside(reference: str, base: Subject, measures_losses: bool) -> Subject:
    """What is asked the same as base and adapter: on its own base, in its own form."""
    folder, whole = _found(reference)
    return subject_beside(base, folder, reference, whole=whole, measures_losses=measures_losses)


def subject_beside(base: Subject, folder: Path, name: str, *, whole: bool, measures_losses: bool) -> Subject:
    """What lies in a folder, to be asked beside a base and its adapter.

    Raises:
        SpecError: it stands on another base, in whose tokens losses are not measured.
    """
    own = absolute_base(recorded_base(folder))
    if measures_losses and own.base != base.model.base:
        raise SpecError(
            f"beside: {name} was trained on {own.base}, and held_out is measured in tokens of {base.model.base}; "
            "remove the task or the name"
        )
    # The very same settings of a base let it share the base in memory.
    model = base.model if own.base == base.model.base and own.revision == base.model.revision else own
    return replace(trained_subject(replace(base, model=model), folder, name, whole=whole), strict=False)


def trained_subject(base: Subject, folder: Path, name: str, *, whole: bool) -> Subject:
    """What was trained on a base: the adapter in a folder, or the whole model."""
    if not whole:
        return replace(base, name=name, adapter=folder, strict=True)
    return replace(base, name=name, model=base.model.model_copy(update={"base": str(folder), "revision": None}))
