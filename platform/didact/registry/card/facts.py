"""Everything that a model card tells, gathered from a run folder."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didact.datasets.catalog import PREFIX, Card, find_card
from didact.errors import DataError
from didact.registry.card.licences import Terms, terms_of
from didact.runs import RecordedRun, RecordedSource, Run, record_of
from didact.spec.model import BUNDLED_BASE

if TYPE_CHECKING:  # it comes with the tensors
    from didact.evaluation import EvalReport

BUNDLED_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_HUB = "hf:"
_MULTI = "multi"


@dataclass(frozen=True, slots=True)
class CardSource:
    """A source as a card shows it: no folder of this machine."""

    recorded: RecordedSource
    card: Card | None
    """Of the catalog, where the source names one that is still known."""

    @property
    def place(self) -> str:
        """Where the rows come from: an address, or the name of a file."""
        path = self.recorded.path
        return Path(path).name if Path(path).is_absolute() else path

    @property
    def hub(self) -> str | None:
        """The Hugging Face dataset."""
        path = self.recorded.path
        if path.startswith(_HUB):
            return path.removeprefix(_HUB).partition(":")[0]
        return self.card.source.hub if self.card else None


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What is known of a trained adapter."""

    name: str
    """Of the registered model, else of the run."""
    version: str | None
    """`NAME:VERSION` once it is registered."""
    recorded: RecordedRun
    sources: tuple[CardSource, ...]
    terms: Terms
    report: "EvalReport | None"
    verdict: Mapping[str, Any] | None
    template_arguments: Mapping[str, Any]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe as plain data."""
        return self.recorded.recipe

    @property
    def method(self) -> str:
        """Such as `lora`."""
        return str((self.recipe.get("adapter") or {}).get("method", "lora"))

    @property
    def base_on_hub(self) -> str | None:
        """The base as the Hugging Face hub knows it; None for a folder of one's own."""
        return on_hub(self.recorded.base)

    @property
    def base_shown(self) -> str:
        """The base for people: its id, or the name of its folder."""
        return self.base_on_hub or Path(str(self.recorded.base)).name

    @property
    def languages(self) -> tuple[str, ...]:
        """Of the data, as the catalog's cards state them; ISO 639-1."""
        found = (language for source in self.sources if source.card for language in source.card.languages)
        return tuple(dict.fromkeys(language for language in found if language != _MULTI))


def on_hub(base: str | None) -> str | None:
    """The hub id of a base as a recipe names it; None for a folder."""
    if base is None or base == BUNDLED_BASE:
        return BUNDLED_ON_HUB if base else None
    is_folder = Path(base).expanduser().exists() or base.startswith(("/", ".", "~"))
    return None if is_folder or base.count("/") > 1 else base


def card_facts(run: Run, name: str | None = None, version: str | None = None) -> CardFacts:
    """Read what a run folder tells.

    Args:
        run: with a trained adapter.
        name: of the registered model; None for the run's.
        version: `NAME:VERSION` once there is one.

    Raises:
        DidactError: a file of the run is damaged.
    """
    recorded = record_of(run)
    report = None
    if run.report.is_file():
        from didact.evaluation import EvalReport

        report = EvalReport.load(run.report)
    return CardFacts(
        name or recorded.name,
        version,
        recorded,
        tuple(CardSource(source, _card(source.path)) for source in recorded.sources),
        terms_of(recorded.sources),
        report,
        _plain(run.verdict),
        (recorded.recipe.get("tokens") or {}).get("template_arguments") or {},
    )


def _card(path: str) -> Card | None:
    with contextlib.suppress(DataError):
        return find_card(path.removeprefix(PREFIX)) if path.startswith(PREFIX) else None
    return None


def _plain(path: Path) -> Mapping[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else None
    return None
