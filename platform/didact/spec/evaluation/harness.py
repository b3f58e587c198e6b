"""Benchmarks of EleutherAI's lm-evaluation-harness (lm-eval), and those that use its programs."""

from typing import Any, Literal

from pydantic import Field, model_validator

from didact.spec.base import Spec
from didact.spec.evaluation.tasks import QuestionTask


class LmEvalTask(Spec):
    """Any benchmark of lm-eval, asked by our engine and scored by lm-eval. Needs `pip install "didact[lm-eval]"`."""

    task: Literal["lm_eval"]
    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of lm-eval's tasks, groups or tags, such as `hellaswag` or `mmlu`, or of those in `folder`."""
    name: str = ""
    """As in `eval/<name>/<metric>`; left out, the name of the only task, or `lm_eval` for several."""
    folder: str | None = None
    """Folder with YAML files of tasks of your own; a name that is in both is taken from here."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Worked examples before each question; left out, as many as the task says."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many questions of each task; left out, all of them."""
    chat: bool = True
    """Ask in turns of a conversation, by the template that the adapter was taught. False: plain text, as published
    figures of base models are measured."""
    fewshot_as_multiturn: bool = True
    """Each worked example is a turn of its own; False puts them all into the user's turn. Only with `chat`."""
    system: str | None = None
    """Instruction before everything."""
    generation: dict[str, Any] = Field(default_factory=dict)
    """Changes to how the tasks generate: `max_gen_toks`, `until`, `do_sample`, `temperature`, `top_p`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Changes to any other field of the tasks' YAML, such as `dataset_kwargs`."""
    unsafe_code: bool = False
    """Let tasks that run code which the model wrote do so, in this process."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name"):
            tasks = values.get("tasks")
            only = tasks[0] if isinstance(tasks, list | tuple) and len(tasks) == 1 else "lm_eval"
            return {**values, "name": only}
        return values


class IfEvalTask(QuestionTask):
    """IFEval (Zhou et al., 2023): instructions that a program can check. Needs `pip install "didact[lm-eval]"`."""

    task: Literal["ifeval"]
    path: str = Field(min_length=1)
    """Its JSON lines (`key`, `prompt`, `instruction_id_list`, `kwargs`), or `hf:google/IFEval`."""
    max_new_tokens: int = Field(default=1280, ge=1)
    """Longest answer, in tokens."""
