"""A node in words: a line that names it, and lines with what is known of it. "not recorded" is said, never left out."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from didact.lineage.graph import Node

MISSING = "not recorded"
_DIGITS = 12


def title(node: Node) -> str:
    """One line that names it, without its kind where that is plain."""
    return _TITLES[node.kind](node.facts)


def details(node: Node) -> list[str]:
    """Further lines; none for what its title says whole."""
    return _DETAILS[node.kind](node.facts) if node.kind in _DETAILS else []


def short(digest: Any) -> str:
    """The first digits of a digest."""
    return str(digest)[:_DIGITS] if digest else MISSING


def terms(facts: Mapping[str, Any]) -> str:
    """A source's licence and what it says of commercial use."""
    licence, commercial = facts.get("licence"), facts.get("commercial")
    if licence is None:
        return f"licence {MISSING}"
    if licence == "unknown" and commercial is None:
        return "licence unknown"
    allowed = {True: "", False: ", NON-COMMERCIAL", None: ", commercial use not clear"}[commercial]
    return f"licence {licence}{allowed}"


def _source(facts: Mapping[str, Any]) -> list[str]:
    used, rejected, weight = facts.get("rows_used"), facts.get("rows_rejected"), facts.get("weight")
    rows = MISSING if used is None else f"{used:,} samples"
    fingerprint = facts.get("fingerprint")
    lines = [
        terms(facts),
        f"{rows}{f', {rejected:,} rows rejected' if rejected else ''}"
        f"{'' if weight is None else f', weight {weight:.3g}'}"
        f"{'' if fingerprint is None else f', rows {short(fingerprint)}'}",
    ]
    if facts.get("revision"):
        lines.append(f"revision {facts['revision']}")
    if not facts.get("files_recorded"):
        lines.append(f"files {MISSING}")
    return lines


def _run(facts: Mapping[str, Any]) -> list[str]:
    commit = facts.get("commit")
    changed = {True: ", changed since", False: "", None: ""}[facts.get("changed")]
    packages = facts.get("packages") or {}
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers", "peft") if packages.get(name))
    machine = ", ".join(str(facts[key]) for key in ("host", "processor") if facts.get(key))
    device = facts.get("device")
    attempts = facts.get("attempts")
    return [
        f"recipe {short(facts.get('recipe_sha256'))}, begun {_begun(facts.get('started'))}"
        + (f", {attempts} attempts" if attempts and attempts > 1 else ""),
        f"commit {short(commit)}{changed}; {versions or f'versions {MISSING}'}",
        f"machine {machine or MISSING}{f', on {device}' if device and device != 'cpu' else ''}"
        + (f", {facts['workers']} workers" if (facts.get("workers") or 1) > 1 else ""),
        *([f"went on from {'; '.join(facts['went_on_from'])}"] if facts.get("went_on_from") else []),
        *([f"MLflow run {facts['mlflow_run']}"] if facts.get("mlflow_run") else []),
    ]


def _begun(text: Any) -> str:
    """When a run began, as its record has it (ISO 8601)."""
    try:
        return _minute(datetime.fromisoformat(str(text)).astimezone(UTC)) if text else MISSING
    except ValueError:
        return str(text)


def _minute(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


def _verdict(facts: Mapping[str, Any]) -> list[str]:
    said = facts.get("said") or {}
    return [_check(check) for check in said.get("checks") or said.get("lines") or ()]


def _check(check: Any) -> str:
    if not isinstance(check, dict):
        return str(check)
    asked = f"{check.get('figure')}, asked for {check.get('limit')}"
    return f"{check.get('check')} {check.get('of')}: {asked}: {check.get('outcome')}"


def _decided(facts: Mapping[str, Any]) -> str:
    said = facts.get("said") or {}
    if "passed" not in said:
        return str(said.get("verdict") or MISSING)
    return "of no gate" if not said.get("checks") else "passed" if said["passed"] else "refused"


def _figures(facts: Mapping[str, Any]) -> list[str]:
    if "unreadable" in facts:
        return [f"cannot be read: {facts['unreadable']}"]
    return [
        f"{name} {_number(base)}" + ("" if after is None else f" -> {_number(after)}")
        for name, (base, after) in (facts.get("figures") or {}).items()
    ]


def _version(facts: Mapping[str, Any]) -> list[str]:
    made = facts.get("created_ms")
    when = _minute(datetime.fromtimestamp(made / 1000, UTC)) if made else MISSING
    return [f"registered {when}, gate {facts.get('gate') or MISSING}"]


def _file(facts: Mapping[str, Any]) -> str:
    gone = " (gone)" if facts.get("there") is False else ""
    return f"file {facts['path']}, sha256 {short(facts.get('sha256'))}{gone}"


def _cache(facts: Mapping[str, Any]) -> str:
    kind, _, address = str(facts["address"]).partition("/")
    return f"prepared samples {kind}/{short(address)}{'' if facts.get('there') else ' (not in the cache here)'}"


def _mixture(facts: Mapping[str, Any]) -> str:
    steps = facts.get("num_steps")
    return f"mixture {short(facts.get('fingerprint'))}{f', {steps:,} steps' if steps else ''}"


def _trial(facts: Mapping[str, Any]) -> list[str]:
    values = facts.get("values")
    return [", ".join(f"{path} {value}" for path, value in values.items()) if values else f"values {MISSING}"]


def _adapter(facts: Mapping[str, Any]) -> str:
    method = facts.get("method")
    return f"adapter {short(facts.get('sha256'))}{f', {method}' if method else ''}"


def _base(facts: Mapping[str, Any]) -> str:
    revision = facts.get("revision")
    return (
        f"base {facts.get('name') or MISSING}{f' at {revision}' if revision else ''}, {short(facts.get('fingerprint'))}"
    )


def _number(value: Any) -> str:
    return "not a number" if value is None or value != value else f"{value:.4g}"


_TITLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "file": _file,
    "questions": lambda facts: f"questions of {facts.get('task') or MISSING}: {_file(facts)}",
    "source": lambda facts: f"source {facts['name']}: {facts.get('path') or f'path {MISSING}'}",
    "cache": _cache,
    "mixture": _mixture,
    "sweep": lambda facts: f"sweep {facts.get('name') or MISSING}",
    "trial": lambda facts: f"trial {facts.get('name') or MISSING}",
    "base": _base,
    "run": lambda facts: f"run {facts.get('name') or MISSING}",
    "checkpoint": lambda facts: f"checkpoint of step {facts['step']:,}",
    "adapter": _adapter,
    "evaluation": lambda facts: f"evaluation {Path(facts['path']).name if facts.get('path') else ''}".strip(),
    "verdict": lambda facts: f"verdict {_decided(facts)}",
    "version": lambda facts: f"{facts['name']}:{facts['version']}",
    "alias": lambda facts: str(facts["name"]),
}
_DETAILS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "source": _source,
    "run": _run,
    "trial": _trial,
    "evaluation": _figures,
    "verdict": _verdict,
    "version": _version,
}
