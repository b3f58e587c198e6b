"""Keyword arguments, a file or both -> a spec, by the checks and words of files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from didact.errors import SpecError
from didact.spec import EvaluateSpec, FinetuneSpec, Spec, SweepSpec, read_mapping, set_dotted, validate
from didact.spec.load import merge, parse_mapping
from didact.spec.shipped import find_recipe

AnySpec = TypeVar("AnySpec", bound=Spec)
_SUFFIXES = (".yaml", ".yml", ".json")
_NAMES = {FinetuneSpec: "recipe", EvaluateSpec: "evaluation", SweepSpec: "search"}


def recipe(start: "str | Path | FinetuneSpec | None" = None, /, **fields: Any) -> FinetuneSpec:
    """A recipe: what a run is.

    Args:
        start: a file, a recipe that comes with didact by its name, or another recipe; left out: the defaults.
        **fields: the recipe's fields, over those of `start`: mappings are merged, all else takes the place of what was
            there. `data` may also be rows or a path, as may the `path` of a source: a pandas or pyarrow table, a
            `datasets.Dataset`, or a list of dicts.

    Raises:
        SpecError: a field is unknown, missing or cannot be, with what to write.
        DataError: a source that is no table.
    """
    if "data" in fields:
        fields = {**fields, "data": _data(fields["data"])}
    return spec_from(FinetuneSpec, start, fields)


def spec_from(spec_type: type[AnySpec], start: "str | Path | Spec | None", fields: Mapping[str, Any]) -> AnySpec:
    """A spec of any kind; see `recipe`.

    Raises:
        SpecError: see `recipe`.
    """
    if isinstance(start, spec_type) and not fields:
        return start
    values, origin = _start(start, _NAMES.get(spec_type, "settings"))
    for key, value in fields.items():
        if "." in key:
            set_dotted(values, key, _plain(value), origin)
        else:
            merge(values, {key: _plain(value)})
    spec: AnySpec = validate(spec_type, values, origin)
    return spec


def _start(start: "str | Path | Spec | None", name: str) -> tuple[dict[str, Any], str]:
    if start is None:
        return {}, f"this {name}"
    if isinstance(start, Spec):
        return start.model_dump(mode="json", exclude_unset=True), f"this {name}"
    if not isinstance(start, str | Path):
        known = "a file, the name of one that comes with didact, or a recipe; rows go in as data="
        expected = known if name == "recipe" else "a file or a spec; single fields go in as keyword arguments"
        raise SpecError(f"this {name}: found {type(start).__name__}; expected {expected}")
    file = Path(start).expanduser()
    if name == "recipe" and file.suffix not in _SUFFIXES and len(file.parts) == 1 and not file.is_file():
        shipped = find_recipe(str(start))
        return parse_mapping(shipped.text, f"recipe {shipped.name}"), f"recipe {shipped.name} with these changes"
    return read_mapping(file), str(start)


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's numbers and arrays, as loops over settings have them
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _data(data: Any) -> Any:
    """The recipe's `data`, with tables in memory written to the cache."""
    if isinstance(data, Spec):
        return data
    if isinstance(data, str | Path):
        return {"sources": [{"name": "rows", "path": str(data)}]}
    if not isinstance(data, Mapping) or hasattr(data, "with_format"):
        return {"sources": [{"name": "rows", "path": _path(data)}]}
    sources = data.get("sources")
    if not isinstance(sources, list | tuple):
        return data
    return {**data, "sources": [_source(each) for each in sources]}


def _source(source: Any) -> Any:
    return {**source, "path": _path(source["path"])} if isinstance(source, Mapping) and "path" in source else source


def _path(place: Any) -> str:
    if isinstance(place, str | Path):
        return str(place)
    from didact.datasets.places.in_memory import keep_rows

    return keep_rows(place)
