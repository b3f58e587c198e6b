"""Where an adapter comes from, as tags of its version to search by."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it comes with the tensors, and a name is looked up without them
    from didact.preparation import SourceFacts


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric, for the base alone and with the adapter."""

    metric: str
    base: float
    adapter: float


@dataclass(frozen=True, slots=True)
class Lineage:
    """All that decided an adapter, and how it did."""

    recipe: str
    base: str
    """Bundled name, folder or hub id of the base model."""
    base_sha256: str
    method: str
    template_fingerprint: str
    """Digest of the template contract."""
    sources: "tuple[SourceFacts, ...]"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the method, plain data."""
    figures: tuple[Figure, ...] = ()
    git_commit: str | None = None
    run_id: str | None = None
    """MLflow run."""
    licence: str = "unknown"
    """The strictest of the sources', see `Terms`."""
    descends_from: str | None = None
    """What the run went on from, where it was longer than it was begun with."""

    def tags(self) -> dict[str, str]:
        """As tags of a model version: one fact a tag, the mixture as JSON."""
        mixture = {
            source.name: {
                "path": source.path,
                "licence": source.licence,
                "commercial": source.commercial,
                "fingerprint": source.fingerprint,
                "weight": source.weight,
                "rows_used": source.samples_usable,
                "rows_rejected": source.num_rejected,
            }
            for source in self.sources
        }
        facts = {
            "recipe": self.recipe,
            "base": self.base,
            "base_sha256": self.base_sha256,
            "method": self.method,
            "method_options": json.dumps(dict(self.options), sort_keys=True),
            "template_fingerprint": self.template_fingerprint,
            "mixture": json.dumps(mixture),
            "git_commit": self.git_commit,
            "run_id": self.run_id,
            "licence": self.licence,
            "descends_from": self.descends_from,
        }
        for figure in self.figures:
            facts[f"base.{figure.metric}"] = repr(figure.base)
            facts[f"adapter.{figure.metric}"] = repr(figure.adapter)
        return {key: value for key, value in facts.items() if value is not None}
