"""Finds lm-eval's tasks by name or in a folder, and makes their requests."""

import contextlib
import difflib
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import UndefinedError
from lm_eval.tasks import TaskManager

from didact.errors import DataError, SpecError
from didact.evaluation.harness.chat import Chat
from didact.evaluation.harness.task import Asked, HarnessTask
from didact.spec import LmEvalTask

_FEWSHOT_SEED = 1234
"""lm-eval's own default, so that the same examples are chosen."""
_CHANGED = "changed by options"


def build_lm_eval(spec: LmEvalTask) -> HarnessTask:
    """The tasks that a spec names, with their questions.

    Raises:
        SpecError: a name that there is no task for, or a task that must be allowed by name.
        DataError: a task whose data or packages are missing, or that is not about text.
    """
    with _seeded():
        leaves, groups = _loaded(spec)
        questions: list[Asked] = []
        for name, task in leaves.items():
            _settle(spec, name, task)
            questions += _asked(spec, name, task)
    return HarnessTask.of(spec, leaves, groups, questions)


def _loaded(spec: LmEvalTask) -> tuple[dict[str, Any], dict[str, Any]]:
    manager = _manager(spec)
    names: list[Any] = list(spec.tasks)
    if spec.options:  # only members of a group can be changed while they are read
        names = [{"group": _CHANGED, "task": [{"task": name, **spec.options} for name in spec.tasks]}]
    try:
        found = manager.load(names)
    except ImportError as error:
        raise DataError(f"lm_eval {', '.join(spec.tasks)}: {error}; install the package that the task needs") from error
    except (OSError, LookupError, TypeError, ValueError, UndefinedError) as error:
        raise DataError(f"lm_eval {', '.join(spec.tasks)}: {type(error).__name__}: {error}") from error
    return dict(found["tasks"]), {name: group for name, group in found["groups"].items() if name != _CHANGED}


def _manager(spec: LmEvalTask) -> TaskManager:
    """Reading lm-eval's own 14,000 files takes seconds, and is left out where a folder has all names."""
    if spec.folder is not None and not Path(spec.folder).expanduser().is_dir():
        raise SpecError(f"folder: {spec.folder} is not a folder; expected one with YAML files of lm-eval tasks")
    folder = None if spec.folder is None else str(Path(spec.folder).expanduser())
    manager = TaskManager(include_path=folder, include_defaults=folder is None)
    if folder is not None and not set(spec.tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)
    for name in spec.tasks:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise SpecError(f"tasks: lm-eval has no {name!r}{hint}; `lm_eval ls tasks` lists them")
    return manager


def _settle(spec: LmEvalTask, name: str, task: Any) -> None:
    """Settings as lm-eval's own `simple_evaluate` settles them."""
    if getattr(task, "MULTIMODAL", False):
        raise DataError(f"lm_eval {name} shows pictures or sounds; expected a task over text")
    if getattr(task, "UNSAFE_CODE", False) and not spec.unsafe_code:
        raise SpecError(f"lm_eval {name} runs code that the model wrote; set unsafe_code: true to allow it")
    if spec.generation and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value=dict(spec.generation), update=True)
    own = task.get_config("num_fewshot")
    if spec.num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=spec.num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=_FEWSHOT_SEED)


def _asked(spec: LmEvalTask, name: str, task: Any) -> Iterator[Asked]:
    """Documents with their requests."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar for each task
            task.build_all_requests(
                limit=spec.limit,
                system_instruction=spec.system,
                apply_chat_template=spec.chat,
                fewshot_as_multiturn=spec.chat and spec.fewshot_as_multiturn,
                chat_template=Chat.of if spec.chat else None,
            )
    except (LookupError, TypeError, ValueError, UndefinedError) as error:
        raise DataError(f"lm_eval {name}: {type(error).__name__}: {error}; expected rows of its fields") from error
    by_document: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    for number, instances in by_document.items():
        yield Asked(name, number, tuple(sorted(instances, key=lambda each: each.idx)))


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Tasks that shuffle their documents do so as under lm-eval's own seeds."""
    before, numpys = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(_FEWSHOT_SEED)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpys)
