"""Relative paths made absolute: Ray workers run in folders of their own."""

from pathlib import Path
from typing import Any

from didact.spec.evaluation import EvaluationSpec, Gsm8kTask
from didact.spec.finetune import FinetuneSpec
from didact.spec.model import ModelSpec
from didact.spec.template_file import read_template


def with_absolute_paths(spec: FinetuneSpec) -> FinetuneSpec:
    """The same recipe with every local path absolute, as seen from the working directory.

    A chat template of one's own becomes its text, so that workers and later attempts need no file.

    Raises:
        TemplateError: the template is not there, or its syntax is broken.
    """
    sources = tuple(
        source.model_copy(update={"path": _absolute(source.path), "options": _absolute_root(source.options)})
        for source in spec.data.sources
    )
    against = tuple(
        each.model_copy(update={"path": _absolute(each.path), "options": _absolute_root(each.options)})
        for each in spec.data.contamination.against
    )
    contamination = spec.data.contamination.model_copy(update={"against": against})
    return spec.model_copy(
        update={
            "model": absolute_base(spec.model),
            "data": spec.data.model_copy(update={"sources": sources, "contamination": contamination}),
            "tokens": spec.tokens.model_copy(update={"template": read_template(spec.tokens.template)}),
            "evaluation": absolute_task_paths(spec.evaluation) if spec.evaluation else None,
        }
    )


def absolute_base(model: ModelSpec) -> ModelSpec:
    """The same base with its folder absolute, where it is one; a bundled name or a hub id stays."""
    folder = Path(model.base).expanduser()
    return model.model_copy(update={"base": str(folder.absolute())}) if folder.exists() else model


def absolute_task_paths(evaluation: EvaluationSpec) -> EvaluationSpec:
    """The same evaluation with the files of its tasks absolute."""
    tasks = tuple(
        task.model_copy(update={"path": _absolute(task.path)}) if isinstance(task, Gsm8kTask) else task
        for task in evaluation.tasks
    )
    return evaluation.model_copy(update={"tasks": tasks})


def _absolute_root(options: dict[str, Any]) -> dict[str, Any]:
    """`root` is where a card's files lie."""
    return {**options, "root": _absolute(str(options["root"]))} if "root" in options else options


def _absolute(path: str) -> str:
    return path if ":" in path else str(Path(path).expanduser().absolute())
