"""A model registry on a shelf: adapter folders with versions and aliases, and outages at will."""

from dataclasses import replace
from pathlib import Path

from didact.errors import AdapterError, NotRegistered, RegistryError
from didact.models import verify_adapter
from didact.registry import Holding, ModelVersion, parse_reference


class ShelfRegistry:
    """Answers like `didact.registry.Registry`, from memory."""

    def __init__(self) -> None:
        self.down = False
        self.questions = 0
        self._folders: dict[str, list[Path]] = {}
        self._sha256: dict[Path, str] = {}
        self._made: dict[str, int] = {}
        self._num_made = 0
        self._aliases: dict[str, dict[str, int]] = {}

    def add(self, name: str, folder: Path, alias: str | None = None) -> ModelVersion:
        """Register a folder as the next version."""
        if name not in self._folders:
            self._made[name] = self._num_made = self._num_made + 1
        self._folders.setdefault(name, []).append(folder)
        self._sha256[folder] = verify_adapter(folder).sha256
        version = len(self._folders[name])
        if alias:
            self.point(name, alias, version)
        return self._version(name, version)

    def point(self, name: str, alias: str, version: int) -> None:
        """Move an alias."""
        self._aliases.setdefault(name, {})[alias] = version

    def remove(self, name: str) -> None:
        """Delete a model."""
        del self._folders[name], self._made[name]
        self._aliases.pop(name, None)

    def resolve(self, reference: str, default_alias: str = "champion") -> ModelVersion:
        """See `Registry.resolve`."""
        self._ask()
        wanted = parse_reference(reference)
        if wanted.name not in self._folders:
            raise NotRegistered(f"no model {wanted.name!r}")
        aliases, newest = self._aliases.get(wanted.name, {}), len(self._folders[wanted.name])
        if wanted.version is not None:
            number = wanted.version
        elif wanted.alias is not None:
            number = aliases.get(wanted.alias, 0)
        else:
            number = aliases.get(default_alias) or aliases.get("candidate") or newest
        if not 1 <= number <= newest:
            raise NotRegistered(f"no model {reference!r}")
        return self._version(wanted.name, number)

    def version(self, name: str, number: int) -> ModelVersion:
        """See `Registry.version`."""
        self._ask()
        if not 1 <= number <= len(self._folders.get(name, [])):
            raise NotRegistered(f"no model {name}:{number}")
        return replace(self._version(name, number), aliases=())

    def holdings(self) -> tuple[Holding, ...]:
        """See `Registry.holdings`."""
        self._ask()
        return tuple(
            Holding(name, self._made[name], dict(self._aliases.get(name, {})), self._version(name, len(folders)))
            for name, folders in sorted(self._folders.items())
        )

    def list(self) -> tuple[ModelVersion, ...]:
        """See `Registry.list`."""
        self._ask()
        return tuple(
            self._version(name, number)
            for name, folders in sorted(self._folders.items())
            for number in range(len(folders), 0, -1)
        )

    def download(self, version: ModelVersion, cache_dir: Path) -> Path:
        """See `Registry.download`: the folder itself, verified."""
        self._ask()
        folder = self._folders[version.name][version.version - 1]
        if verify_adapter(folder).sha256 != version.adapter_sha256:
            raise AdapterError(f"{version.id} is not what was registered")
        return folder

    def _ask(self) -> None:
        self.questions += 1
        if self.down:
            raise RegistryError("the registry is down")

    def _version(self, name: str, number: int) -> ModelVersion:
        aliases = tuple(sorted(alias for alias, at in self._aliases.get(name, {}).items() if at == number))
        folder = self._folders[name][number - 1]
        return ModelVersion(
            name=name,
            version=number,
            aliases=aliases,
            adapter_sha256=self._sha256[folder],
            run_id=None,
            source="shelf",
            tags={},
            created_ms=0,
        )
