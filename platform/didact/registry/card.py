"""Where an adapter comes from: as tags to search by, and as a card to read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it comes with the tensors, and a name is looked up without them
    from didact.preparation import SourceFacts

UNKNOWN_LICENCE = "unknown unless stated by the sources"


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
    licence: str = UNKNOWN_LICENCE
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


def model_card(name: str, lineage: Lineage) -> str:
    """A Markdown card for the registered model `name`."""
    options = ", ".join(f"{key} {value}" for key, value in lineage.options.items())
    lines = [
        f"# {name}",
        "",
        f"{lineage.method} adapter for `{lineage.base}`, trained with recipe `{lineage.recipe}`.",
        "",
        "| | |",
        "|---|---|",
        f"| Base model | `{lineage.base}`, sha256 `{lineage.base_sha256}` |",
        f"| Method | {_cell(lineage.method)}{_cell('; ' + options) if options else ''} |",
        f"| Template contract | `{lineage.template_fingerprint}` |",
        f"| Code | {f'commit `{lineage.git_commit}`' if lineage.git_commit else 'no commit recorded'} |",
        f"| MLflow run | {f'`{lineage.run_id}`' if lineage.run_id else 'none'} |",
        f"| Licence | {_cell(lineage.licence)} |",
        *([f"| Goes on from | {_cell(lineage.descends_from)} |"] if lineage.descends_from else []),
        "",
        "## Data",
        "",
        "| Source | Weight | Rows used | Rows rejected | Fingerprint |",
        "|---|---:|---:|---:|---|",
        *(
            f"| {_cell(s.name)} | {s.weight:g} | {s.samples_usable} | {s.num_rejected} | `{s.fingerprint}` |"
            for s in lineage.sources
        ),
        "",
        "## Evaluation",
        "",
    ]
    if lineage.figures:
        lines += ["| Metric | Base | With adapter | Change |", "|---|---:|---:|---:|"]
        lines += [
            f"| {_cell(f.metric)} | {f.base:.4g} | {f.adapter:.4g} | {f.adapter - f.base:+.4g} |"
            for f in lineage.figures
        ]
    else:
        lines.append("Not evaluated.")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
