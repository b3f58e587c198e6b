"""Run folders as a finished run leaves them, trained by the real loop without Ray, in seconds."""

from pathlib import Path

from didact.cluster.worker import computing_on, export
from didact.evaluation import EvalReport, ModelFacts, task_texts
from didact.files import append_jsonl
from didact.preparation import prepare_run
from didact.preparation.parts import run_here
from didact.runs import Run, start_run
from didact.spec import FinetuneSpec
from didact.tracking import JsonLinesTracker
from tests.fakes.loops import Loop, run_loop

METRIC = "eval/sums/loss"


def train_here(spec: FinetuneSpec, runs_dir: Path) -> Run:
    """What `cluster.finetune` does up to the adapter."""
    import torch

    run = start_run(spec, runs_dir)
    prepared, _ = prepare_run(run, spec, run_here, task_texts)
    append_jsonl(run.workers, {"attempt": 1, **computing_on(spec, torch.device("cpu"), 1)})
    tracker = JsonLinesTracker(run.steps, attempt=1)
    loop: Loop = run_loop(spec, run.checkpoints)
    for report in loop.reports:
        loss = report.metrics["train/loss"]
        tracker.log(report.step, report.metrics, sample_ids=list(report.sample_ids), loss_hex=loss.hex())
    export(loop.model, run, spec, prepared)
    return run


def finished_run(spec: FinetuneSpec, runs_dir: Path) -> Run:
    """A trained run with a report of made-up figures: loss 2.5 of the base, 1.25 with the adapter."""
    run = train_here(spec, runs_dir)
    models = {"base": ModelFacts(spec.model.base), "adapter": ModelFacts(run.name)}
    EvalReport(models, {"base": {METRIC: 2.5}, "adapter": {METRIC: 1.25}}, {METRIC: 8}).save(run.report)
    return run
