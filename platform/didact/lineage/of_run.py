"""A run folder as part of the graph: files -> sources -> prepared samples -> mixture -> run -> adapter -> report."""

import contextlib
import json
from pathlib import Path
from typing import Any

from didact import env
from didact.errors import DidactError
from didact.files import fingerprint, sha256_file
from didact.lineage.graph import Graph
from didact.runs import RecordedAdapter, RecordedRun, RecordedSource
from didact.tracking import mlflow_run_id


def add_run(graph: Graph, recorded: RecordedRun) -> str:
    """Add what a run folder says of itself; returns the run's node."""
    run = graph.add("run", run_key(recorded), **_run_facts(recorded))
    _add_data(graph, recorded, run)
    _add_base(graph, recorded, run)
    checkpoint = None
    if recorded.checkpoint is not None:
        checkpoint = graph.add("checkpoint", f"{run_key(recorded)}:{recorded.checkpoint}", step=recorded.checkpoint)
        graph.lead(run, checkpoint)
    for earlier in recorded.earlier:
        graph.lead(run, _add_adapter(graph, earlier))
    own = {adapter.sha256 for adapter in (*recorded.earlier, recorded.adapter) if adapter}
    for descent in recorded.descents:
        if descent.adapter_sha256 and descent.adapter_sha256 not in own:
            graph.lead(graph.add("adapter", descent.adapter_sha256, sha256=descent.adapter_sha256), run)
    if recorded.adapter:
        adapter = _add_adapter(graph, recorded.adapter)
        graph.lead(checkpoint or run, adapter)
        _add_judgement(graph, recorded, adapter)
    return run


def run_key(recorded: RecordedRun) -> str:
    """What tells a run apart: its name, and where it lies."""
    return f"{recorded.name}:{fingerprint(str(recorded.run.path))[:8]}"


def verdict_of(path: Path) -> dict[str, Any] | None:
    """What a `verdict.json` says; None where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else None
    return None


def _run_facts(recorded: RecordedRun) -> dict[str, Any]:
    last = recorded.attempts[-1] if recorded.attempts else {}
    git = last.get("git") or {}
    worker = recorded.workers[-1] if recorded.workers else {}
    return {
        "name": recorded.name,
        "path": str(recorded.run.path),
        "recipe_sha256": sha256_file(recorded.run.recipe),
        "started": recorded.attempts[0].get("time") if recorded.attempts else None,
        "attempts": len(recorded.attempts) or None,
        "commit": git.get("commit"),
        "changed": git.get("changed"),
        "packages": last.get("packages"),
        "python": last.get("python"),
        "host": worker.get("host") or last.get("host"),
        "processor": worker.get("processor") or last.get("processor"),
        "device": worker.get("device"),
        "workers": worker.get("workers"),
        "went_on_from": [descent.before for descent in recorded.descents] or None,
        "mlflow_run": mlflow_run_id(recorded.run.path),
    }


def _add_data(graph: Graph, recorded: RecordedRun, run: str) -> None:
    steps, contract = recorded.num_steps, recorded.template_contract
    key = recorded.mixture or f"of {run_key(recorded)}"
    mixture = graph.add("mixture", key, fingerprint=recorded.mixture, num_steps=steps, template_contract=contract)
    for source in recorded.sources:
        node = _add_source(graph, source, key)
        cache = None
        if source.tokens:
            there = (env.cache_dir() / "tokens" / source.tokens).is_dir()
            cache = graph.add("cache", f"tokens/{source.tokens}", address=f"tokens/{source.tokens}", there=there)
            graph.lead(node, cache)
        graph.lead(cache or node, mixture)
    trial = recorded.trial
    if trial is None:
        graph.lead(mixture, run)
        return
    sweep = graph.add("sweep", str(trial.get("sweep")), name=trial.get("sweep"))
    name = f"{trial.get('sweep')}/{trial.get('trial')}"
    tried = graph.add("trial", name, sweep=trial.get("sweep"), name=trial.get("trial"), values=trial.get("values"))
    graph.lead(sweep, tried)
    graph.lead(mixture, tried)
    graph.lead(tried, run)


def _add_source(graph: Graph, source: RecordedSource, mixture: str) -> str:
    facts = {name: getattr(source, name) for name in RecordedSource.__slots__ if name not in ("files", "tokens")}
    node = graph.add("source", f"{mixture}/{source.name}", **facts, files_recorded=source.files is not None)
    for path, sha256 in (source.files or {}).items():
        place = None if "://" in path else Path(path).exists()
        graph.lead(graph.add("file", f"{sha256}@{path}", path=path, sha256=sha256, there=place), node)
    return node


def _add_base(graph: Graph, recorded: RecordedRun, run: str) -> None:
    name, digest = recorded.base, recorded.adapter.base_fingerprint if recorded.adapter else None
    model = recorded.recipe.get("model") or {}
    base = graph.add("base", digest or str(name), name=name, fingerprint=digest, revision=model.get("revision"))
    graph.lead(base, run)
    # A base that was merged from an adapter goes back to what that was trained on.
    proof = verdict_of(Path(str(name)) / "proof.json") if name and "/" in str(name) else None
    merged = (proof or {}).get("adapter_sha256")
    if isinstance(merged, str):
        graph.lead(graph.add("adapter", merged, sha256=merged), base)


def _add_adapter(graph: Graph, adapter: RecordedAdapter) -> str:
    return graph.add(
        "adapter",
        adapter.sha256,
        sha256=adapter.sha256,
        weights_sha256=adapter.weights_sha256,
        method=adapter.method,
        path=str(adapter.path),
    )


def _add_judgement(graph: Graph, recorded: RecordedRun, adapter: str) -> None:
    run, evaluation = recorded.run, None
    if run.report.is_file():
        facts, asked = _report_facts(run.report)
        evaluation = graph.add("evaluation", run_key(recorded), **facts)
        graph.lead(adapter, evaluation)
        for task, path, sha256 in asked:
            there = Path(path).exists()
            node = graph.add("questions", f"{sha256}@{path}", task=task, path=path, sha256=sha256, there=there)
            graph.lead(node, evaluation)
    if (verdict := verdict_of(run.verdict)) is not None:
        sha256 = sha256_file(run.verdict)
        node = graph.add("verdict", sha256, sha256=sha256, path=str(run.verdict), said=verdict)
        graph.lead(evaluation or adapter, node)


def _report_facts(path: Path) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """What a report says; and task, path and sha256 of each file of its questions."""
    from didact.evaluation import EvalReport  # it comes with the tensors

    facts: dict[str, Any] = {"path": str(path), "sha256": sha256_file(path)}
    try:
        report = EvalReport.load(path)
    except DidactError as error:
        return {**facts, "unreadable": str(error)}, []
    before, after = report.metrics("base"), report.metrics("adapter") if report.adapter is not None else {}
    asked = [(task.name, file, sha256) for task in report.tasks for file, sha256 in task.files.items()]
    return {**facts, "figures": {name: [value, after.get(name)] for name, value in before.items()}}, asked
