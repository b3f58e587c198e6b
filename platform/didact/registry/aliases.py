"""An alias moves only to a version whose verdict lets it, unless somebody forces it by name; either is written down."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from didact.errors import RegistryError
from didact.registry.asking import asking
from didact.registry.moves import TAG, Move, moves_of, with_move
from didact.registry.versions import ModelVersion, spoken

if TYPE_CHECKING:
    from mlflow import MlflowClient

ANY: Any = object()
"""For `Registry.promote`: whatever the alias points to now."""
FORCED = "{alias}.forced"
"""Tag of a version that got an alias against its gate: who, when and why."""
_PREVIOUS = "{alias}.previous"


class Alias:
    """One alias of a registered model, as it stands now. The caller holds the model's lock."""

    def __init__(self, client: "MlflowClient", uri: str, name: str, alias: str) -> None:
        """Look it up.

        Raises:
            RegistryError: no such model, or MLflow is dead or refuses.
        """
        self._client, self._uri, self._name, self.alias = client, uri, name, alias
        with asking(uri, f"read {name}"):
            model = client.get_registered_model(name)
        self._tags = dict(model.tags)
        self.current: int | None = int(model.aliases[alias]) if alias in model.aliases else None

    def __str__(self) -> str:
        return f"{self._name}@{self.alias}"

    @property
    def previous(self) -> int:
        """Where it pointed before it was last moved.

        Raises:
            RegistryError: that is not remembered.
        """
        found = int(self._tags.get(_PREVIOUS.format(alias=self.alias), 0))
        if found in (0, self.current):
            now = "was never set and" if self.current is None else f"({spoken(self.current)})"
            raise RegistryError(f"{self} {now} has no earlier version to go back to")
        return found

    def has_pointed_to(self, version: int) -> bool:
        """Whether it ever pointed to a version, as far back as moves are kept."""
        moves = [each for each in moves_of(self._tags, self.alias) if each.refused is None]
        before = int(self._tags.get(_PREVIOUS.format(alias=self.alias), 0))
        return version in (before, *(number for each in moves for number in (each.before, each.after)))

    def expect(self, expected: int | None, wanted: int) -> None:
        """
        Raises:
            RegistryError: it points to another version than `expected`.
        """
        if expected is ANY or self.current == expected:
            return
        was = f"{self} points to {spoken(self.current)}, expected {spoken(expected)}: it was moved meanwhile"
        self._record(Move.now(self.current, wanted, refused=was))
        raise RegistryError(f"{was}; look at what it is now and decide again")

    def move(self, version: ModelVersion, refusal: str | None, force: str | None, *, back: bool = False) -> None:
        """Point it to a version.

        Args:
            version: where to.
            refusal: why the version's verdict does not let it; None where it does.
            force: why to move it nevertheless.
            back: whether this undoes the last move, which is then forgotten.

        Raises:
            RegistryError: it is refused and not forced, or MLflow is dead or refuses.
        """
        if self.current == version.version:
            return
        if force is not None and not force.strip():
            raise RegistryError("force: found an empty reason; expected why the gate is passed over")
        if refusal is not None and force is None:
            self._record(Move.now(self.current, version.version, refused=refusal))
            raise RegistryError(
                f"{version.id} may not become @{self.alias}: {refusal}. To move it nevertheless give the reason "
                "(--force REASON), which is recorded"
            )
        forced = force if refusal is not None else None
        made = Move.now(self.current, version.version, forced=forced)
        with asking(self._uri, f"set {self}"):
            if forced is not None:
                note = json.dumps({**asdict(made), "against": refusal})
                self._client.set_model_version_tag(
                    self._name, str(version.version), FORCED.format(alias=self.alias), note
                )
            self._record(made)
            remembered = _PREVIOUS.format(alias=self.alias)
            if self.current is not None and not back:
                self._client.set_registered_model_tag(self._name, remembered, str(self.current))
            self._client.set_registered_model_alias(self._name, self.alias, str(version.version))
            if back:
                self._client.delete_registered_model_tag(self._name, remembered)

    def _record(self, move: Move) -> None:
        with asking(self._uri, f"note a move of {self}"):
            value = with_move(self._tags, self.alias, move)
            self._client.set_registered_model_tag(self._name, TAG.format(alias=self.alias), value)
