"""What an evaluation is about, as whoever asks knows it: nothing here loads a model.

base [+ adapter] -> Subject -> (a worker loads it) -> SubjectFacts
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didact.evaluation import Identity, task_texts
from didact.preparation import open_prepared, prepare_data
from didact.spec import FinetuneSpec, ModelSpec, TokensSpec
from didact.tokens import TemplateContract


@dataclass(frozen=True, slots=True)
class Subject:
    """What answers: a base, bare or with an adapter folder, asked as its recipe says."""

    name: str
    """For people."""
    model: ModelSpec
    adapter: Path | None = None
    tokens: TokensSpec = field(default_factory=TokensSpec)
    """How the base is asked; an adapter has its own contract."""
    strict: bool = False
    """Refuse an adapter whose contract is not the one that `tokens` make of the base."""


@dataclass(frozen=True, slots=True)
class SubjectFacts:
    """What is known of a subject once its base is loaded."""

    identity: Identity
    contract: TemplateContract
    context_length: int
    """Tokens of prompt and answer together."""


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """Where held-out rows come from."""

    recipe: FinetuneSpec
    prepared: Path | None = None
    """The run's record of prepared data; None prepares the recipe's data where it is needed."""

    def open(self) -> Mapping[str, Any]:
        """Source name -> its held-out samples."""
        if self.prepared is not None:
            return open_prepared(self.prepared, self.recipe, task_texts).mixture.held_out
        return prepare_data(self.recipe, task_texts=task_texts).mixture.held_out
