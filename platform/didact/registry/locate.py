"""Find the registry the user means, and adapters: a run folder, an adapter folder, or a registered name."""

from pathlib import Path

from didact.env import cache_dir, runs_dir
from didact.errors import AdapterError
from didact.registry.registry import Registry
from didact.spec import TrackingSpec
from didact.tracking import resolve_uri


def open_registry(tracking: TrackingSpec | None = None, folder: Path | None = None) -> Registry:
    """The registry of a tracking setting; default: `MLFLOW_TRACKING_URI`, else the sqlite file beside the runs.

    Args:
        tracking: a recipe's setting.
        folder: where run folders lie; default `DIDACT_RUNS`.
    """
    folder = folder or runs_dir()
    return Registry(resolve_uri(tracking or TrackingSpec(), folder), folder / "mlartifacts")


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
    if folder.is_dir() and "/" in reference:  # a bare word may also be the name of some unrelated folder
        raise AdapterError(f"{folder} holds neither a finished run nor an adapter (no adapter.json)")
    return registry.download(registry.resolve(reference), cache_dir())
