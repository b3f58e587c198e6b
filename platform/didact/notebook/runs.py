"""The verbs that run something, each one call of the room below that the command line calls as well."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from didact import env
from didact.notebook.settings import recipe, spec_from
from didact.spec import EvaluateSpec, FinetuneSpec, SweepSpec

if TYPE_CHECKING:
    from didact.cluster import FinetuneResult
    from didact.evaluation import EvalReport
    from didact.preparation import Plan
    from didact.registry import ModelVersion, Versions
    from didact.tuning import SweepResult


def plan(start: "str | Path | FinetuneSpec | None" = None, /, **fields: Any) -> "Plan":
    """What a recipe will do: data, steps, memory, placement. Reads the data and trains nothing.

    Args:
        start: see `recipe`.
        **fields: see `recipe`.

    Raises:
        DidactError: anything that keeps the recipe from running, with what to change.
    """
    spec = recipe(start, **fields)
    env.quiet_libraries()
    from didact.connect import cluster_to_join
    from didact.evaluation import task_texts
    from didact.preparation import Plan, prepare_data

    cluster = cluster_to_join()
    return Plan.of(spec, prepare_data(spec, task_texts=task_texts), cluster=cluster)


def finetune(
    start: "str | Path | FinetuneSpec | None" = None, /, *, allow_fresh: bool = False, **fields: Any
) -> "FinetuneResult":
    """Finetune, evaluate and register. Called again with the same name, it resumes.

    Args:
        start: see `recipe`.
        allow_fresh: when no checkpoint verifies, set them aside and start from the base.
        **fields: see `recipe`.

    Raises:
        DidactError: anything that keeps the recipe from running, with what to change.
    """
    spec = recipe(start, **fields)
    env.quiet_libraries()
    from didact.cluster import finetune as run

    return run(spec, allow_fresh=allow_fresh)


def evaluate(start: "str | Path | EvaluateSpec | None" = None, /, **fields: Any) -> "EvalReport":
    """Measure a base, and an adapter beside it.

    Args:
        start: a file such as jobs/evaluations/demo.yaml; left out: the defaults.
        **fields: `model`, `adapter` and `evaluation` as in the file, over its own. `adapter` may also be a version, or
            what `finetune` returned, whose base is then the default. Without `evaluation` its held-out rows are used.

    Raises:
        DidactError: anything that keeps it from running, with what to change.
    """
    adapter = fields.get("adapter")
    if start is None:
        trained = {"model": adapter.run.spec().model} if _is_result(adapter) else {}
        fields = {**trained, "evaluation": {}, **fields}
    if adapter is not None:
        fields = {**fields, "adapter": reference_of(adapter)}
    spec = spec_from(EvaluateSpec, start, fields)
    env.quiet_libraries()
    from didact.cluster import evaluate_adapter

    return evaluate_adapter(spec)


def sweep(start: "str | Path | SweepSpec | None" = None, /, **fields: Any) -> "SweepResult":
    """Search over settings and mixtures; an interrupted search continues.

    Args:
        start: a file such as tune_spaces/lora.yaml; left out: the defaults.
        **fields: the search's fields, over those of the file. `recipe` may also be a recipe.

    Raises:
        DidactError: anything that keeps it from running, with what to change.
    """
    start_recipe = fields.get("recipe")
    if isinstance(start_recipe, FinetuneSpec):
        fields = {**fields, "recipe": start_recipe.name}
    spec = spec_from(SweepSpec, start, fields)
    env.quiet_libraries()
    from didact.tuning import run_sweep

    origin = Path("this search") if start is None or isinstance(start, SweepSpec) else Path(start)
    return run_sweep(spec, origin, recipe=start_recipe if isinstance(start_recipe, FinetuneSpec) else None)


def versions(name: str | None = None) -> "Versions":
    """Registered adapters, the newest of each name first.

    Args:
        name: of a registered model; left out: all.
    """
    env.quiet_libraries()
    from didact.registry import open_registry

    return open_registry().list(name)


def promote(name: str, version: int, alias: str = "champion", *, force: str | None = None) -> "ModelVersion":
    """Point an alias to a version that can be served and passed its gate; replicas follow within a second.

    Args:
        name: of a registered model.
        version: of that model.
        alias: to move.
        force: why to move it although its gate does not allow it; the reason is kept.

    Raises:
        AdapterError: it cannot be served; says why.
        NotRegistered: there is no such version.
    """
    env.quiet_libraries()
    from didact.registry import open_registry
    from didact.registry.promotion import promote_servable

    return promote_servable(open_registry(), name, version, alias, force=force)


def reference_of(adapter: Any) -> Any:
    """The name or folder of an adapter that is given as what `finetune` returned, as a version or a path."""
    if _is_result(adapter):
        return str(adapter.run.path)
    return str(adapter) if isinstance(adapter, Path) else getattr(adapter, "id", adapter)


def _is_result(adapter: Any) -> "TypeGuard[FinetuneResult]":
    """Whether it is a `FinetuneResult`, whose room takes seconds to import."""
    return hasattr(adapter, "run") and hasattr(adapter.run, "path")
