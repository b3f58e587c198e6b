"""Options of a Ray Serve file that Serve does not have: it would leave them out without a word."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from didact.spec.explain import complaints
from didact.spec.explain.schema import Expected, Path, expected_in, is_model, items_of
from didact.spec.explain.shown import dotted
from didact.spec.explain.where import line_of

_DEPLOYMENTS = ("Gateway", "ModelReplica")


def unknown_options(schema: type[BaseModel], values: Any) -> list[str]:
    """One complaint for each option or deployment that there is not, with its line and the nearest right name.

    Args:
        schema: Serve's own, of a whole file.
        values: of a file that Serve's own schema takes.
    """
    unknown = _unknown(values, [Expected(schema)], ())
    lines = complaints(schema, values, [{"type": "extra_forbidden", "loc": path} for path in unknown])
    for number, deployment in enumerate(values["applications"][0].get("deployments") or ()):
        place: Path = ("applications", 0, "deployments", number)
        if deployment["name"] not in _DEPLOYMENTS:
            lines.append(_no_deployment(values, place, deployment["name"]))
    return lines


def _unknown(values: Any, alternatives: list[Expected], path: Path) -> Iterator[Path]:
    """Places of keys that no model has."""
    if isinstance(values, list):
        items = [item for each in alternatives for item in items_of(each)]
        for number, value in enumerate(values):
            yield from _unknown(value, items, (*path, number))
    models = [each.type for each in alternatives if is_model(each)]
    if not isinstance(values, dict) or not models:
        return
    for key, value in values.items():
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        if fields:
            yield from _unknown(value, [found for field in fields for found in expected_in(field)], (*path, key))
        else:
            yield *path, key


def _no_deployment(values: Any, place: Path, name: str) -> str:
    near = difflib.get_close_matches(str(name), _DEPLOYMENTS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"expected {' or '.join(_DEPLOYMENTS)}"
    return f"line {line_of(values, (*place, 'name'))}: {dotted((*place, 'name'))}: found {name!r}; {hint}"
