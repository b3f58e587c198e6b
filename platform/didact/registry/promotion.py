"""An alias is pointed only to a version that can be served."""

from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from didact import env
from didact.errors import AdapterError
from didact.registry.aliases import ANY
from didact.registry.locate import recorded_base
from didact.registry.registry import Registry
from didact.registry.versions import CHAMPION, ModelVersion
from didact.spec import BUNDLED_BASE, ModelSpec


def promote_servable(
    registry: Registry,
    name: str,
    version: int,
    alias: str = CHAMPION,
    expected_current: Any = ANY,
    force: str | None = None,
) -> ModelVersion:
    """`Registry.promote` once the version's files are fetched, and checked as servers check them, forced or not.

    Raises:
        AdapterError: the version cannot be served; the alias stays.
        NotRegistered, RegistryError: see `Registry.promote`.
    """
    found = registry.version(name, version)
    try:
        check_servable(registry.download(found, env.cache_dir()))
    except AdapterError as error:
        raise AdapterError(f"{found.id} cannot be served, so {name}@{alias} stays where it is: {error}") from error
    return registry.promote(name, version, alias, expected_current, force=force)


def check_servable(folder: Path) -> None:
    """Check an adapter's bytes and values, and its tensors against the base, where that lies on this machine.

    Raises:
        AdapterError: it is damaged, unsafe, not finite, or does not fit.
    """
    from didact.models import verify_adapter
    from didact.models.export.rehearsal import rehearse

    base = _base_here(folder)
    if base is None:
        verify_adapter(folder)
    else:
        rehearse(folder, base)


def _base_here(folder: Path) -> ModelSpec | None:
    """The adapter's base, where nothing need be downloaded for it."""
    try:
        base = recorded_base(folder)
    except AdapterError:  # it was a folder that is gone
        return None
    if base.base == BUNDLED_BASE or (Path(base.base).expanduser() / "config.json").is_file():
        return base
    is_hub_id = base.base.count("/") <= 1 and not base.base.startswith(("/", ".", "~"))
    cached = try_to_load_from_cache(base.base, "config.json", revision=base.revision) if is_hub_id else None
    return base if isinstance(cached, str) else None
