"""A finished run becomes a version of a registered model."""

import contextlib
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from didact.errors import RegistryError, RunError
from didact.evaluation import EvalReport, GateResult, judge_policy
from didact.evaluation.checks import Check
from didact.evaluation.report import ADAPTER
from didact.files import fingerprint, sha256_file
from didact.logs import get_logger
from didact.models import base_fingerprint
from didact.models.export.rehearsal import rehearse
from didact.preparation import DataFacts
from didact.registry.card import Figure, Lineage, terms_of, write_card
from didact.registry.evidence import champion_of, checks_of_run
from didact.registry.locate import registry_of
from didact.registry.verdict import NO_CHAMPION, Verdict, signing_key
from didact.registry.versions import CHAMPION, ModelVersion
from didact.runs import Run, descents, git_state, record_of
from didact.spec import FinetuneSpec, GateSpec, RegisterSpec

_LOG = get_logger(__name__)


def publish_run(
    run: Run, spec: FinetuneSpec, register_as: RegisterSpec, mlflow_run_id: str | None
) -> tuple[GateResult | None, ModelVersion]:
    """Register a trained run's adapter with its lineage; the alias is set only when the gate lets it pass.

    Args:
        run: with `adapter/`, `data.json` and, where a gate is asked, `report.json`.
        spec: its recipe.
        register_as: name, alias and gate.
        mlflow_run_id: run that holds the artifacts; None makes one for the adapter alone.

    Raises:
        AdapterError: the adapter could not be served: damaged, not finite, or not of its base's shapes.
        RunError: the run is not trained, or not evaluated though a gate asks for figures.
        RegistryError: the registry refused.
    """
    if not run.data.is_file() or not run.adapter.is_dir():
        if run.path.name == run.adapter.name and (above := Run(run.path.parent)).recipe.is_file():
            raise RunError(f"{run.path} is the adapter of a run; register the run: didact register {above.path}")
        raise RunError(f"run {run.path} has no finished adapter; train it first: didact train {run.recipe}")
    report = EvalReport.load(run.report) if run.report.is_file() else None
    policy = register_as.gate
    if policy.asks_report and report is None:
        raise RunError(f"run {run.path} has no report.json, which register_as.gate needs; evaluate it first")
    mine = rehearse(run.adapter, spec.model).sha256
    registry = registry_of(run, spec.tracking)
    champion = champion_of(registry, register_as.name)
    gate = _judge(run, spec, policy, report, mine, champion)
    verdict = judged(run, policy, gate, report, mine, champion)
    if not verdict.passed:
        _LOG.warning("the gate keeps alias %r from this version", register_as.alias)
    lineage = _lineage(run, spec, report, mlflow_run_id)
    version = registry.register(
        register_as.name,
        run.adapter,
        run_id=mlflow_run_id,
        tags={**lineage.tags(), "gate": verdict.outcome},
        card=write_card(run, register_as.name) or "",
        alias=register_as.alias if verdict.passed else None,
        verdict=verdict,
    )
    registry.keep_card(version, write_card(run, version.name, version.id) or "")
    return gate, version


def _judge(
    run: Run,
    spec: FinetuneSpec,
    policy: GateSpec,
    report: EvalReport | None,
    mine: str,
    champion: ModelVersion | None,
) -> GateResult | None:
    """None where nothing is asked, and nothing that was asked of a model is left without a score."""
    if not policy.asks and (report is None or report.is_complete):
        return None
    other = champion if champion is not None and champion.adapter_sha256 != mine else None
    judged = None
    if report is not None:
        judged = judge_policy(report, policy, other.id if other else None, is_champion=champion is not other)
    found, fallen = (judged.checks, judged.fallen) if judged else ((), ())
    evaluated = report.models[ADAPTER].digests.get("adapter") if report and ADAPTER in report.models else None
    if evaluated not in (None, mine):
        figure = f"the report is of {evaluated[:12]}, the run holds {mine[:12]}"
        found = (*found, Check("evaluated", "adapter", figure, "this adapter's own report", "failed"))
    template = DataFacts.read(run.data).template_contract
    return GateResult((*found, *checks_of_run(run, spec, policy, other, template)), fallen)


def judged(
    run: Run,
    policy: GateSpec,
    gate: GateResult | None,
    report: EvalReport | None,
    adapter_sha256: str,
    champion: ModelVersion | None,
) -> Verdict:
    """The verdict on a run's adapter, written into its folder; the one that is there where it says the same, and beside
    it as `verdict-DIGEST.json` where it does not.

    Args:
        run: with its adapter.
        policy: the gate.
        gate: what it decided; None where nothing was asked.
        report: of the evaluation, where there is one.
        adapter_sha256: of the run's adapter.
        champion: of the registered model; None as long as there is none.

    Raises:
        RegistryError: the key to sign with can be guessed.
    """
    digests = {"recipe": sha256_file(run.recipe), "data": sha256_file(run.data)}
    digests |= {} if report is None else {"report": sha256_file(run.report), **_digests(report)}
    if policy.compares:
        digests[CHAMPION] = champion.adapter_sha256 if champion is not None else NO_CHAMPION
    made = datetime.now(UTC).isoformat(timespec="seconds")
    fresh = Verdict(
        adapter_sha256,
        gate.checks if gate else (),
        digests,
        policy.model_dump(mode="json"),
        made,
    ).signed(signing_key())
    with contextlib.suppress(RegistryError):  # none yet, or another format
        earlier = Verdict.load(run.verdict)
        if earlier == replace(fresh, made=earlier.made).signed(signing_key()):
            return earlier
        earlier.save(run.verdict.with_name(earlier.earlier_file))
    fresh.save(run.verdict)
    return fresh


def _digests(report: EvalReport) -> dict[str, str]:
    """Of all that was judged: models, questions, answers, how training data was searched and, where there are some,
    judges."""
    models = {name: fingerprint(facts.digests) for name, facts in report.models.items() if facts.digests}
    answers = [
        [each.task, each.id, {name: asdict(given) for name, given in each.given.items()}] for each in report.questions
    ]
    judges = {task.name: task.judge for task in report.tasks if task.judge}
    searched = {name: asdict(facts.searched) for name, facts in report.models.items() if facts.searched}
    return {
        **{f"model {name}": digest for name, digest in models.items()},
        "questions": fingerprint({task.name: task.version for task in report.tasks}),
        "answers": fingerprint(answers),
        **({"judge": fingerprint(judges)} if judges else {}),
        **({"searched": fingerprint(searched)} if searched else {}),
    }


def _lineage(run: Run, spec: FinetuneSpec, report: EvalReport | None, mlflow_run_id: str | None) -> Lineage:
    data = DataFacts.read(run.data)
    before, after = (report.metrics("base"), report.metrics("adapter")) if report else ({}, {})
    return Lineage(
        recipe=spec.name,
        base=spec.model.base,
        base_sha256=base_fingerprint(spec.model),
        method=spec.adapter.method,
        template_fingerprint=data.template_contract,
        sources=data.sources,
        options=spec.adapter.model_dump(mode="json", exclude={"method"}),
        figures=tuple(Figure(metric, before[metric], after[metric]) for metric in before if metric in after),
        git_commit=(git_state(Path(__file__).parent) or {}).get("commit"),
        run_id=mlflow_run_id,
        licence=terms_of(record_of(run).sources).strictest,
        descends_from="; ".join(map(str, descents(run))) or None,
    )
