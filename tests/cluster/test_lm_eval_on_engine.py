"""lm-eval's tasks by our own engine: the figures of its Hugging Face backend on the same base."""

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="the extra didact[lm-eval] is not installed")

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from didact.cluster.asking.answering import EngineModels
from didact.cluster.asking.subjects import Subject
from didact.evaluation import Asked, run_task
from didact.evaluation.harness import HarnessTask
from didact.evaluation.questions import ModelTokens
from didact.evaluation.tasks import build_task
from didact.models import load_tokenizer
from didact.spec import LmEvalTask, ModelSpec
from tests.fakes.lm_eval_tasks import TASKS, folder_of_tasks, lm_evals_results
from tests.fakes.models import save_tiny_base, tiny_model
from tests.fakes.on_engine import OnEngine


def test_figures_are_those_of_lm_evals_own_backend(tmp_path: Path) -> None:
    tasks = folder_of_tasks(tmp_path)
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    tokenizer = load_tokenizer(base)
    theirs = HFLM(pretrained=tiny_model(), tokenizer=tokenizer, batch_size=2, device="cpu")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    results = lm_evals_results(model=theirs, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0)
    models = EngineModels({"base": Subject("tiny", base)}, device=torch.device("cpu"), batch_size=3)
    try:
        facts = models.facts["base"]
        tokens = ModelTokens(tokenizer, facts.contract, facts.context_length)
        for name in TASKS:
            task = build_task(LmEvalTask(task="lm_eval", tasks=(name,), folder=str(tasks), chat=False))
            assert isinstance(task, HarnessTask)
            asked = {"model": Asked(OnEngine(models), tmp_path / "cache")}
            found = asyncio.run(run_task(task.with_tokens(tokens), asked))
            assert found.num_problems == 0
            expected = {key: value for key, value in results[name].items() if "," in key and value != "N/A"}
            for key, value in expected.items():
                label = key.removesuffix(",none").replace(",", "_")
                assert found.metrics[f"eval/{name}/{label}"] == pytest.approx(value, rel=1e-4), key
    finally:
        models.close()
