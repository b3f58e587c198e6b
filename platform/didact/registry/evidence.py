"""The checks of a gate that a run's folder and the champion answer, not an evaluation."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from didact.errors import AdapterError, ModelError, NotRegistered, TemplateError
from didact.evaluation.checks import Check
from didact.registry.export import export_merged
from didact.registry.reading import RegistryReader
from didact.registry.versions import CHAMPION, ModelVersion
from didact.runs import Run
from didact.spec import FinetuneSpec, GateSpec, MergeSpec


def champion_of(registry: RegistryReader, name: str) -> ModelVersion | None:
    """The champion of a registered model; None as long as there is none."""
    try:
        return registry.resolve(f"{name}@{CHAMPION}")
    except NotRegistered:
        return None


def checks_of_run(
    run: Run, spec: FinetuneSpec, policy: GateSpec, champion: ModelVersion | None, template: str
) -> Iterator[Check]:
    """One line each for what the gate asks of the run itself.

    Args:
        run: with its adapter.
        spec: its recipe.
        policy: the gate.
        champion: of the registered model; None as long as there is none.
        template: fingerprint of the run's template contract.
    """
    if policy.clean:
        found = spec.data.contamination.policy
        figure, limit = f"contamination policy {found!r}", "'drop' or 'fail'"
        yield Check("clean", "training data", figure, limit, "not measured" if found == "allow" else "passed")
    if policy.same_template:
        yield _same_template(champion, template)
    if policy.merge_proof:
        yield _merge_proof(run, spec)


def _same_template(champion: ModelVersion | None, template: str) -> Check:
    limit = "that of the champion"
    if champion is None:
        return Check("same_template", "template contract", "no champion yet", limit, "passed")
    theirs = champion.tags.get("template_fingerprint")
    if theirs is None:
        return Check("same_template", "template contract", f"{champion.id} records none", limit, "not measured")
    figure = f"{template[:12]}, {champion.id} has {theirs[:12]}"
    return Check("same_template", "template contract", figure, limit, "passed" if theirs == template else "failed")


def _merge_proof(run: Run, spec: FinetuneSpec) -> Check:
    limit = "within the limits of `didact merge`"
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=run.path) as folder:
        try:
            proof = export_merged(spec.model, run.adapter, Path(folder) / "merged", MergeSpec())
        except ModelError as error:
            return Check("merge_proof", "merged model", str(error), limit, "failed")
        except (AdapterError, TemplateError) as error:
            return Check("merge_proof", "merged model", str(error), limit, "not measured")
    return Check("merge_proof", "merged model", str(proof.merged).removeprefix("merged: "), limit, "passed")
