"""Names that mean for a whole file what they meant when it was begun, whatever is promoted meanwhile."""

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future

from typing_extensions import override

from didact.errors import NotRegistered
from didact.registry import ModelVersion
from didact.serving.engine.protocol import AdapterRef
from didact.serving.replica.adapter_store import FolderVersion
from didact.serving.replica.catalog import Catalog, Meaning, Offer

_Adapter = ModelVersion | FolderVersion | AdapterRef | None
_PER_LOOK = 500
"""Names that are resolved by one look at the registry; a catalog remembers twice as many."""


class PinnedNames(Catalog):
    """A catalog that never looks at the registry again.

    Args:
        base_name: the name that means the base.
        adapters: name -> what answers; None is the base.
    """

    def __init__(self, base_name: str, adapters: Mapping[str, _Adapter]) -> None:
        self.base_name = base_name
        self._adapters = adapters

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        names: Iterable[str],
        also: Mapping[str, _Adapter],
    ) -> "PinnedNames":
        """What `names` mean in a catalog now; those that it does not have stay unknown.

        Raises:
            RegistryError: the registry cannot be reached.
        """
        found: dict[str, _Adapter] = {}
        asked = [name for name in names if name not in also]
        for start in range(0, len(asked), _PER_LOOK):
            some = asked[start : start + _PER_LOOK]
            looks = [catalog.next_look(name) for name in some]
            catalog.refresh()
            for name, looked in zip(some, looks, strict=True):
                looked.result()
                with contextlib.suppress(NotRegistered):
                    meaning = catalog.meaning(name)
                    found |= {} if meaning is None else {name: meaning.adapter}
        return cls(catalog.base_name, {**found, **also})

    @override
    def meaning(self, name: str) -> Meaning | None:
        adapter = self._adapters.get(name)
        if name not in self._adapters and name != self.base_name:
            raise NotRegistered(f"no model {name!r}")
        if isinstance(adapter, AdapterRef | FolderVersion):
            return Meaning(name, None, adapter)
        return Meaning(name, adapter)

    @override
    def next_look(self, name: str) -> "Future[None]":
        looked: Future[None] = Future()
        looked.set_result(None)
        return looked

    @override
    def offers(self) -> list[Offer]:
        return []
