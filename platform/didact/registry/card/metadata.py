"""A card's first lines, as the Hugging Face hub reads them: what it is, of what, under which licence, how good."""

import math
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:  # the registry cuts metadata off a card without loading the catalog
    from didact.evaluation.report.figures import Point
    from didact.registry.card.facts import CardFacts

_PEFT_METHODS_NOT = ("partial",)
_ADAPTER = "adapter"
_DIGITS = 6
_ROWS = " (held-out rows)"
"""After the name of a source whose loss it is, which may be that of a task as well."""


def front_matter(facts: "CardFacts") -> str:
    """The block between two lines of three dashes, with both."""
    return f"---\n{yaml.safe_dump(metadata(facts), sort_keys=False, allow_unicode=True, width=110)}---\n"


def without_metadata(card: str) -> str:
    """A card from its first heading on, for readers that show metadata as text."""
    parts = card.split("\n---\n", 1)
    return parts[1].lstrip() if card.startswith("---\n") and len(parts) == 2 else card


def metadata(facts: "CardFacts") -> dict[str, Any]:
    """The same as plain data. What is not known is left out; the hub refuses nulls."""
    licence = facts.terms.hub_licence
    values = {
        "base_model": facts.base_on_hub,
        "base_model_relation": "adapter" if facts.base_on_hub else None,
        "library_name": library(facts),
        "pipeline_tag": "text-generation",
        "license": licence,
        "license_name": _slug(facts.terms.strictest) if licence == "other" else None,
        "language": list(facts.languages),
        "datasets": list(dict.fromkeys(source.hub for source in facts.sources if source.hub)),
        "tags": list(dict.fromkeys(["didact", facts.method, "instruction-tuning", *_loud_tags(facts)])),
        "model-index": _model_index(facts),
    }
    return {key: value for key, value in values.items() if value}


def library(facts: "CardFacts") -> str:
    """What loads it: PEFT, or for methods that are none of PEFT's didact itself."""
    return "didact" if facts.method in _PEFT_METHODS_NOT else "peft"


def _loud_tags(facts: "CardFacts") -> list[str]:
    return ["non-commercial"] if facts.terms.non_commercial else []


def _model_index(facts: "CardFacts") -> list[dict[str, Any]]:
    """A result a task, in the hub's form; whose value stands beside it is in each metric's `args`."""
    report = facts.report
    if report is None or report.adapter is None:
        return []
    versions = {task.name: task.version for task in report.tasks if task.version}
    held_out = any(not task.version for task in report.tasks)
    losses = {f"eval/{source.recorded.name}/loss" for source in facts.sources} if held_out else set()
    found: dict[str, list[dict[str, Any]]] = {}
    for figure in report.figures:
        mine = _plain(figure.points.get(_ADAPTER))
        if mine is None:
            continue
        others = {name: _plain(point) for name, point in figure.points.items() if name != _ADAPTER}
        args = {
            **{key: mine[key] for key in mine if key != "value"},
            **{key: its for key, its in others.items() if its},
        }
        kind, value = figure.metric.rpartition("/")[2], mine["value"]
        metric = {"type": kind, "value": value, "name": figure.metric, "args": args}
        found.setdefault(_task(figure.metric) + (_ROWS if figure.metric in losses else ""), []).append(metric)
    results = []
    for task, metrics in found.items():
        version = next((said for name, said in versions.items() if f"{task}/".startswith(f"{name}/")), None)
        dataset = {"name": task, "type": task, **({"args": {"task_version": version}} if version else {})}
        results.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics})
    return [{"name": facts.name, "results": results}] if results else []


def _plain(point: "Point | None") -> dict[str, Any] | None:
    """One model's figure with its 95% interval, for YAML; None where there is none."""
    if point is None or point.value is None or not math.isfinite(point.value):
        return None
    ends = (point.low, point.high)
    known = [round(end, _DIGITS) for end in ends if end is not None and math.isfinite(end)]
    return {
        "value": round(point.value, _DIGITS),
        **({"interval_95": known} if len(known) == len(ends) else {}),
        **({"items": point.count} if point.count else {}),
    }


def _task(metric: str) -> str:
    """`eval/chain_sum/accuracy` is of `chain_sum`; `eval/loss` of all held-out rows."""
    return metric.removeprefix("eval/").rpartition("/")[0] or "held-out rows"


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() or c in ".-" else " " for c in text.lower()).split())[:64]
