"""Evaluate base and adapter as two Ray tasks, side by side."""

from dataclasses import dataclass, replace
from pathlib import Path

import ray
import torch

from didact.cluster.placement import WorkerResources, worker_resources
from didact.connect import check_ray, ray_cluster, receive
from didact.devices import is_out_of_memory, memory_words
from didact.errors import OutOfMemory, SpecError
from didact.evaluation import EvalReport, TaskResult, combine, run_task, task_texts
from didact.models import AdapterHost, base_fingerprint, load_base, load_tokenizer, supports_packing
from didact.preparation import open_prepared, prepare_data
from didact.registry import locate_adapter, open_registry, recorded_base, whole_model
from didact.spec import (
    EvaluateSpec,
    EvaluationSpec,
    FinetuneSpec,
    HeldOutTask,
    ModelSpec,
    PlacementSpec,
    TokensSpec,
    absolute_base,
    absolute_task_paths,
    load_spec,
)
from didact.tokens import TemplateContract


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated: a base, bare or with an adapter folder, and the recipe whose held-out rows are used."""

    model: ModelSpec
    adapter: Path | None
    recipe: FinetuneSpec | None
    prepared: Path | None = None
    """The run's record of prepared data; None prepares the recipe's data where it is needed."""


def evaluate_on_ray(
    base: Subject,
    tuned: Subject | None,
    evaluation: EvaluationSpec,
    resources: WorkerResources,
    *,
    tuned_id: str | None,
) -> EvalReport:
    """Run every task on the base and, when there is one, on the tuned subject; both at once where there is room.

    Raises:
        DidactError: as raised by a task, with its own message.
    """
    task = ray.remote(_measure).options(
        num_cpus=resources.num_cpus,
        num_gpus=1 if resources.use_gpu else 0,
        accelerator_type=resources.accelerator_type,
    )
    pending = [task.remote(subject, evaluation, resources) for subject in (base, tuned) if subject is not None]
    try:
        results = ray.get(pending)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    return combine(results[0], results[1] if tuned else None, base_id=base.model.base, adapter_id=tuned_id)


def evaluate_adapter(spec: EvaluateSpec) -> EvalReport:
    """A stand-alone evaluation: a base, and beside it what was trained on it, by folder or registered name.

    A run that trained the whole base is measured by the model that it left.

    Raises:
        SpecError: held-out losses are asked but the adapter does not come from a run folder.
    """
    check_ray()
    whole = whole_model(spec.adapter) if spec.adapter else None
    folder = whole or (locate_adapter(spec.adapter, open_registry()) if spec.adapter else None)
    recipe_file = folder / "recipe.json" if folder else None
    recipe = load_spec(FinetuneSpec, recipe_file) if recipe_file and recipe_file.is_file() else None
    if recipe is None and any(isinstance(task, HeldOutTask) for task in spec.evaluation.tasks):
        raise SpecError(
            "evaluation.tasks asks for held_out, whose rows only a trained adapter's recipe names; set adapter"
        )
    asked = recorded_base(folder) if folder and "model" not in spec.model_fields_set else spec.model
    base = Subject(absolute_base(asked), None, recipe)
    tuned = trained_subject(base, folder, whole=whole is not None) if folder else None
    with ray_cluster():
        resources = worker_resources(PlacementSpec())
        evaluation = absolute_task_paths(spec.evaluation)
        return evaluate_on_ray(base, tuned, evaluation, resources, tuned_id=spec.adapter)


def trained_subject(base: Subject, folder: Path, *, whole: bool) -> Subject:
    """What was trained on a base: the adapter in a folder, or the whole model."""
    if not whole:
        return replace(base, adapter=folder)
    return replace(base, model=base.model.model_copy(update={"base": str(folder), "revision": None}))


def _measure(subject: Subject, evaluation: EvaluationSpec, resources: WorkerResources) -> tuple[TaskResult, ...]:
    receive()
    device = torch.device("cuda" if resources.use_gpu else "cpu")
    try:
        return _measured(subject, evaluation, resources, device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"evaluation is {memory_words(error, device)}; set evaluation.batch_size below {evaluation.batch_size}, "
            "max_new_tokens of its tasks lower, or model.quantization"
        ) from error


def _measured(
    subject: Subject, evaluation: EvaluationSpec, resources: WorkerResources, device: torch.device
) -> tuple[TaskResult, ...]:
    if not resources.use_gpu:
        torch.set_num_threads(resources.num_cpus)
    tokenizer = load_tokenizer(subject.model)
    contract = TemplateContract.of(tokenizer, subject.recipe.tokens if subject.recipe else TokensSpec())
    base = load_base(subject.model, device, shared=True)
    host = AdapterHost(base, base_fingerprint(subject.model))
    if subject.adapter is not None:
        TemplateContract.load(subject.adapter).check(contract, f"adapter {subject.adapter}")
        host.load("evaluated", subject.adapter)
    held_out = {}
    if subject.recipe and any(isinstance(task, HeldOutTask) for task in evaluation.tasks):
        recipe, record = subject.recipe, subject.prepared
        if record is not None:
            held_out = open_prepared(record, recipe, task_texts).mixture.held_out
        else:
            held_out = prepare_data(recipe, task_texts=task_texts).mixture.held_out
    packing = (subject.recipe.packing if subject.recipe else True) and supports_packing(base)
    with host.active("evaluated" if subject.adapter else None) as model:
        return tuple(
            run_task(
                task,
                model,
                tokenizer,
                contract,
                held_out=held_out,
                batch_size=evaluation.batch_size,
                packing=packing,
            )
            for task in evaluation.tasks
        )
