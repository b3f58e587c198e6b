"""A key that no field has: what was meant by it."""

import difflib
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel

from didact.spec.explain.paths import in_this_source, refused, with_settings
from didact.spec.explain.schema import Path, all_fields, at, describe, is_model, keys_at, value_at
from didact.spec.explain.shown import dotted, setting, settings, shown
from didact.spec.explain.translate import Answer, as_word, in_field, translate, words
from didact.spec.explain.where import line_of

_ALIKE_HERE, _ALIKE_ELSEWHERE = 0.6, 0.8
_UNKNOWN, _KNOWN, _ACCEPTED = range(3)


@dataclass(frozen=True)
class Said:
    """What to say about a path."""

    path: Path
    text: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted field -> value that the text says to write."""


def unknown_key(model: type[BaseModel], values: Any, path: Path) -> list[Said]:
    """What to say about the unknown key at `path`, or about each key of a section that is none here."""
    key, value = str(path[-1]), value_at(values, path)
    if "." in key and at(model, (*path[:-1], *key.split("."))):
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        return [Said(path, f"a path with dots is for the command line; in a file write {shown(nested)[1:-1]}")]
    if wanted := _of_a_task(model, values, path):
        override = line_of(values, path) == 0
        return [Said(path, f"`{setting(key, value, override)}` is written {settings(wanted, override)}", wanted)]
    answer = None

    def fit_here(wanted: dict[str, Any]) -> int:
        return fit(model, values, in_this_source(wanted, path))

    if _is_for_users(model):
        if isinstance(value, dict) and value and as_word(key) in words().sections:
            return [said for inner in value for said in unknown_key(model, values, (*path, inner))]
        answer = translate(key, value, values, fit_here)
    if answer is None or (answer.settings and fit_here(answer.settings) < _ACCEPTED):
        other = _elsewhere(model, values, path)
        is_better = other and other.settings and fit_here(other.settings) == _ACCEPTED
        answer = other if answer is None or is_better else answer
    if answer is None:
        return [Said(path, f"unknown key; {_nearest(model, values, path)}")]
    return [_said(model, values, path, answer)]


def _of_a_task(model: type[BaseModel], values: Any, path: Path) -> dict[str, Any] | None:
    """The field of an evaluation's task that has another name elsewhere."""
    if len(path) < 3 or path[-3] != "tasks":
        return None
    meant = words().tasks.get(as_word(str(path[-1])))
    there = meant is not None and meant in keys_at(model, path[:-1], values)
    return {dotted((*path[:-1], meant)): value_at(values, path)} if there and meant else None


def fit(model: type[BaseModel], values: Any, wanted: dict[str, Any]) -> int:
    """Whether the file may have these settings, and takes their values."""
    if not all(at(model, tuple(target.split("."))) for target in wanted):
        return _UNKNOWN
    return _KNOWN if refused(model, values, wanted) else _ACCEPTED


def _is_for_users(model: type[BaseModel]) -> bool:
    """Recipes, searches, evaluations and serving files, where words of other programs may stand."""
    return not model.model_fields.keys().isdisjoint(("model", "recipe"))


def _said(model: type[BaseModel], values: Any, path: Path, answer: Answer) -> Said:
    key, value, override = str(path[-1]), value_at(values, path), line_of(values, path) == 0
    found = f"`{setting(key, value, override)}`" if len(shown(value)) <= 60 else f"`{key}`"
    if not answer.settings:
        whole = answer.text.startswith(("there is nothing", "unknown key", "found "))
        return Said(path, answer.text if whole else f"found {shown(value)}; {answer.text}")
    wanted = in_this_source(answer.settings, path)
    note = f" ({answer.text})" if answer.text else ""
    if not all(at(model, tuple(target.split("."))) for target in wanted):
        return Said(path, f"{found} belongs into a recipe, as {settings(wanted, override)}{note}")
    wanted, other = _with_method(model, values, wanted)
    if other:
        return Said(path, f"{found} is {other}")
    if isinstance(value, int | float) and not isinstance(value, bool) and refused(model, values, wanted):
        text = {target: str(value) if each is value else each for target, each in wanted.items()}
        wanted = wanted if refused(model, values, text) else text
    for each in refused(model, values, wanted):
        reason = each.message or f"which takes {describe(each.alternatives)}"
        return Said(path, f"{found} is {dotted(each.path)} here, {reason}", wanted)
    return Said(path, f"{found} is written {settings(wanted, override)}{note}", wanted)


def _with_method(model: type[BaseModel], values: Any, wanted: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The settings with the method that has them, where the recipe names none; or why the recipe's cannot have them."""
    options = [target for target in wanted if target.startswith("adapter.") and target != "adapter.method"]
    trial = with_settings(values, wanted)
    lacking = [target for target in options if not at(model, tuple(target.split(".")), trial)]
    if not lacking:
        return wanted, ""
    methods = _methods_with(model, lacking[0].rpartition(".")[2])
    stated = value_at(trial, ("adapter", "method"))
    if stated is None:
        return {"adapter.method": methods[0], **wanted}, ""
    takes = ", ".join(name for name in keys_at(model, ("adapter",), trial) if name != "method") or "no options"
    return wanted, f"{lacking[0]}, of the methods {', '.join(methods)}; method {stated!r} takes {takes}"


def _method(values: Any) -> Any:
    return value_at(values, ("adapter", "method")) or "lora"


def _methods_with(model: type[BaseModel], option: str) -> list[str]:
    models = [each.type for each in at(model, ("adapter",)) if is_model(each) and option in each.type.model_fields]
    return [get_args(each.model_fields["method"].annotation)[0] for each in models]


def _elsewhere(model: type[BaseModel], values: Any, path: Path) -> Answer | None:
    """A field of this name elsewhere in the file."""
    key, value = str(path[-1]), value_at(values, path)
    fields = [each for each in all_fields(model) if each.rpartition(".")[2] == key]
    if any("data.sources.0." in each for each in fields):
        fields = [each for each in fields if ".against." not in each]
    if not fields:
        return None
    # Of another kind of element in the same list, or of another kind of what stands here.
    if dotted(path) in fields or fields == [dotted((*path[:-2], 0, key))]:
        return Answer(text=f"unknown key; known here: {', '.join(keys_at(model, path[:-1], values))}")
    if len(fields) == 1 or fields[0].startswith("adapter."):
        return Answer(in_field(fields[0], value))
    return Answer(text=f"unknown key; there are {' and '.join(fields[:3])}")


def _nearest(model: type[BaseModel], values: Any, path: Path) -> str:
    """The field, or the word of another program, that is spelt most like the key."""
    key, parent = str(path[-1]), path[:-1]
    here = keys_at(model, parent, values)
    by_name = {each.rpartition(".")[2]: each for each in reversed(all_fields(model, values))}
    by_name |= {name: dotted((*parent, name)) for name in here}
    foreign = words().known() if _is_for_users(model) else []
    ratios = {name: difflib.SequenceMatcher(None, key, name).ratio() for name in {*by_name, *foreign}}
    best = max(ratios, key=lambda name: (ratios[name] + (name in here) * 0.1, name), default="")
    near = difflib.get_close_matches(key, here, n=1, cutoff=_ALIKE_HERE)
    if by_name.get(near[0] if near else best) == dotted(path):
        beside = [str(name) for name in value_at(values, parent) or () if name != key]
        return f"it cannot stand beside {', '.join(beside)}" if beside else f"known here: {', '.join(here)}"
    if near and ratios[best] < ratios[near[0]] + 0.1:
        return f"did you mean {by_name[near[0]]}?"
    if ratios.get(best, 0) >= _ALIKE_ELSEWHERE:
        if best in by_name:
            return f"did you mean {by_name[best]}?"
        said = unknown_key(model, with_settings(values, {best: value_at(values, path)}), (best,))[0]
        return f"did you mean `{best}`? {said.text}"
    if not here:
        return "no field has this name"
    whose = f"method {_method(values)!r} takes " if parent == ("adapter",) else "known here: "
    return f"{whose}{', '.join(here)}"
