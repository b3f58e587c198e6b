"""Find the registry the user means, and adapters: a run folder, an adapter folder, or a registered name."""

import json
from pathlib import Path

from didact.adapter_folder import MANIFEST
from didact.env import cache_dir, runs_dir
from didact.errors import AdapterError
from didact.registry.registry import Registry
from didact.runs import Run
from didact.spec import ModelSpec, TrackingSpec, read_mapping, validate
from didact.tracking import resolve_uri


def open_registry(tracking: TrackingSpec | None = None, folder: Path | None = None) -> Registry:
    """The registry of a tracking setting; default: `MLFLOW_TRACKING_URI`, else the sqlite file beside the runs.

    Args:
        tracking: a recipe's setting.
        folder: where run folders lie; default `DIDACT_RUNS`.
    """
    folder = folder or runs_dir()
    return Registry(resolve_uri(tracking or TrackingSpec(), folder), folder / "mlartifacts")


def registry_of(run: Run, tracking: TrackingSpec) -> Registry:
    """Where a run's versions are: in the MLflow that holds the run, whose artifacts their files are.

    A run that MLflow does not hold has them in the registry beside it.

    Args:
        run: its folder.
        tracking: its recipe's setting.
    """
    return open_registry(tracking, None if tracking.mlflow else run.path.parent)


def locate_adapter(reference: str, registry: Registry) -> Path:
    """The local, verified folder of an adapter.

    Args:
        reference: a run folder, an adapter folder, or `name`, `name@alias`, `name:version`.
        registry: where names are looked up.

    Raises:
        AdapterError: a folder that holds no adapter.
        NotRegistered: no registered model, version or alias of that name.
    """
    folder = Path(reference).expanduser()
    for candidate in (folder / "adapter", folder):
        if (candidate / "adapter.json").is_file():
            return candidate
    if whole_model(reference) is not None:
        raise AdapterError(
            f"run {folder} trained the whole base, not an adapter: {folder / 'adapter'} is a model of its own"
        )
    if "/" in reference:  # a bare word may also be the name of some unrelated folder
        found = "holds neither a finished run nor an adapter (no adapter.json)" if folder.is_dir() else "is no folder"
        raise AdapterError(f"{folder} {found}; expected a run folder, an adapter folder or a registered name")
    return registry.download(registry.resolve(reference), cache_dir())


def whole_model(reference: str) -> Path | None:
    """The model of a run that trained the base itself; None where `reference` is no such run folder."""
    folder = Path(reference).expanduser() / "adapter"
    return folder if (folder / "config.json").is_file() and not (folder / MANIFEST).is_file() else None


def recorded_base(folder: Path) -> ModelSpec:
    """The base that an adapter or a model was trained on, as its own folder says.

    Args:
        folder: as `locate_adapter` or `whole_model` gives it.

    Raises:
        AdapterError: the base was a folder that is not there any more.
    """
    recipe, manifest = folder / "recipe.json", folder / MANIFEST
    if recipe.is_file():
        model: ModelSpec = validate(ModelSpec, read_mapping(recipe)["model"], f"model in {recipe}")
    elif manifest.is_file():
        model = ModelSpec(base=json.loads(manifest.read_text(encoding="utf-8"))["base"])
    else:
        model = ModelSpec()
    if Path(model.base).is_absolute() and not Path(model.base).exists():
        raise AdapterError(
            f"adapter {folder} was trained on base {model.base!r}, which is not there any more; give the folder where "
            "it lies now as the base"
        )
    return model
