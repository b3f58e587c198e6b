"""A report as one HTML page that asks for nothing beside it."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from didact.datasets.catalog import licence_of
from didact.datasets.quality import Match, evaluation_set
from didact.datasets.quality.overlap import percent
from didact.display import visible
from didact.pages import histogram, place_of, render_page
from didact.reports.gather import DataReport, ScoredRows, SourceReport

_COLOURED_LANGUAGES = 6
_SHOWN_CHARACTERS = 400
_SCORE_BINS = 30


def render_report(report: DataReport) -> str:
    """The page; every text that comes from data or recipe is escaped."""
    return render_page(
        Path(__file__).with_name("page.html.jinja"),
        {"cut": _cut, "visible": visible, "cell": percent, "evaluation_set": evaluation_set},
        report=report,
        spec=report.spec,
        totals=_totals(report),
        sources=list(_sources(report)),
        most={name: max(getattr(source.facts, name) for source in report.sources) for name in ("rows_read", "tokens")},
        mixture=list(_mixture(report)),
        languages=_languages(report.sources),
        lengths=_lengths(report.sources),
        findings=[each for source in report.sources for each in _findings(source)],
        reasons=_reasons(report.sources),
        scored=[_scored(source.spec.name, source.scored) for source in report.sources if source.scored],
    )


def _totals(report: DataReport) -> dict[str, Any]:
    all_facts = [source.facts for source in report.sources]
    tokens = sum(facts.tokens for facts in all_facts)
    trained = sum(facts.tokens * facts.supervised_share for facts in all_facts)
    return {
        "rows": sum(facts.rows_read for facts in all_facts),
        "rejected": sum(facts.num_rejected for facts in all_facts),
        "held_out": sum(facts.rows_held_out for facts in all_facts),
        "tokens": tokens,
        "trained": trained / max(1, tokens),
        "seen": sum(facts.samples_seen for facts in all_facts),
        "twins": sum(source.twins.num_dropped for source in report.sources),
        "contaminated": sum(source.contaminated.num_dropped for source in report.sources),
    }


def _sources(report: DataReport) -> Iterator[dict[str, Any]]:
    for source in report.sources:
        yield {
            "name": source.spec.name,
            "path": source.spec.path,
            "facts": source.facts,
            "statistics": source.statistics,
            "rejects": source.rejects,
            "found": source.found,
            "licence": licence_of(source.spec),
            "commercial": {True: "yes", False: "no", None: "unclear"}[source.commercial],
        }


def _mixture(report: DataReport) -> Iterator[dict[str, Any]]:
    """What each source is of the mixture; and was asked to be, where weights are stated and not worked out."""
    unit = report.spec.data.weight_unit
    weights = sum(source.spec.weight for source in report.sources)
    samples = sum(source.facts.samples_seen for source in report.sources)
    for source in report.sources:
        facts = source.facts
        seen = facts.share_of_tokens if unit == "tokens" else facts.samples_seen / max(1, samples)
        asked = source.spec.weight / weights if report.spec.data.states_weights else None
        yield {"name": source.spec.name, "asked": asked, "seen": seen, "facts": facts}


def _languages(sources: Sequence[SourceReport]) -> dict[str, Any]:
    """The most frequent languages get a colour each, all others share one."""
    totals: dict[str, float] = {}
    for source in sources:
        for language, share in source.statistics.languages.items():
            totals[language] = totals.get(language, 0.0) + share * source.statistics.num_rows
    shown = sorted(totals, key=lambda language: (-totals[language], language))[:_COLOURED_LANGUAGES]
    rows = []
    for source in sources:
        shares = [source.statistics.languages.get(language, 0.0) for language in shown]
        named = [(language, share) for language, share in zip(shown, shares, strict=True) if share >= 0.005]
        rows.append({"name": source.spec.name, "parts": [*shares, max(0.0, 1 - sum(shares))], "named": named})
    return {"shown": shown, "others": len(totals) > len(shown), "rows": rows}


def _lengths(sources: Sequence[SourceReport]) -> dict[str, Any]:
    """Histograms of characters on one axis."""
    used = [place for source in sources for place, count in enumerate(source.statistics.characters.counts) if count]
    first, last = min(used), max(used)
    edges = sources[0].statistics.characters.edges
    draw = partial(histogram, edges=edges, first=first, last=last)
    rows = [
        {
            "name": source.spec.name,
            "statistics": source.statistics,
            "chart": draw(source.statistics.characters.counts, middle=source.statistics.characters.quantiles["p50"]),
        }
        for source in sources
    ]
    span = last - first + 1
    marks = [mark for mark in (1, 10, 100, 1_000, 10_000, 100_000) if edges[first] <= mark]
    ticks = [(mark, (place_of(mark, edges) - first) / span) for mark in marks]
    return {"rows": rows, "ticks": [(mark, place) for mark, place in ticks if 0 <= place <= 0.95]}


def _reasons(sources: Sequence[SourceReport]) -> list[str]:
    """Evaluation sets that any row holds questions of, in the order of the sources."""
    return list(dict.fromkeys(reason for source in sources for reason in source.found if evaluation_set(reason)))


def _findings(source: SourceReport) -> Iterator[dict[str, Any]]:
    for finding in source.examples:
        cause = finding.cause
        if isinstance(cause, Match):
            text = f"{cause.set_name} {Path(cause.item).name}: “{cause.words}”"
        else:
            part = "held-out row" if cause.held_out else "row"
            text = f"like {part} {cause.row} of {cause.source} ({cause.similarity:.0%})"
        yield {"source": source.spec.name, "row": finding.row, "reason": finding.reason, "text": text}


def _scored(name: str, rows: ScoredRows) -> dict[str, Any]:
    """The figures of one source's rows in bins of equal width; the line is where the rows that stay begin or end."""
    scores, choice = rows.scores, rows.scores.choice
    known = ~np.isnan(scores.values)
    counts, edges = np.histogram(scores.values[known], bins=_SCORE_BINS)
    low, high = scores.bounds
    line = high if choice.keep == "lowest" else low
    return {
        "name": name,
        "choice": choice,
        "stay": int(np.count_nonzero(scores.keep & known)),
        "of": int(np.count_nonzero(known)),
        "bounds": (low, high),
        "clusters": rows.clusters,
        "num_clusters": rows.num_clusters,
        "ends": (float(edges[0]), float(edges[-1])),
        "chart": histogram(counts.tolist(), edges.tolist(), 0, _SCORE_BINS - 1, line),
        "examples": [
            {"value": value, "stays": stays, "text": "\n".join(f"{turn.role}: {turn.content}" for turn in row.messages)}
            for value, stays, row in rows.examples
        ],
    }


def _cut(text: str) -> str:
    return visible(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ...")
