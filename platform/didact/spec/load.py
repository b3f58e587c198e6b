"""Read a spec: defaults < file < `key=value` overrides."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from didact.errors import SpecError
from didact.files import members_once
from didact.spec.adapter import LoraSpec
from didact.spec.base import Spec, validate
from didact.spec.explain import Lined
from didact.spec.shipped import shipped_recipes

AnySpec = TypeVar("AnySpec", bound=Spec)


def load_spec(spec_type: type[AnySpec], path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> AnySpec:
    """Read `path` (YAML or JSON), apply overrides such as `training.learning_rate=1e-4`, and check the whole.

    Raises:
        SpecError: the file is missing, not a mapping, has unknown or wrong fields, or an override names no field.
    """
    if Path(path).suffix == ".json" and not overrides and (written := _written(spec_type, path)) is not None:
        return written
    return _overridden(spec_type, read_mapping(path), overrides, str(path))


def _written(spec_type: type[AnySpec], path: str | Path) -> AnySpec | None:
    """What `to_json` wrote, read 50 times as fast as YAML; None where anything is wrong, which YAML tells by line."""
    try:
        values = json.loads(
            Path(path).read_text(encoding="utf-8"), object_pairs_hook=members_once, parse_constant=_refuse
        )
        return validate(spec_type, values, str(path)) if isinstance(values, dict) else None
    except (OSError, ValueError, SpecError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def spec_of(spec_type: type[AnySpec], settings: list[str] | tuple[str, ...], origin: str) -> AnySpec:
    """A spec of its defaults and `key=value` settings alone; `origin` is named in errors.

    Raises:
        SpecError: as `load_spec`.
    """
    return _overridden(spec_type, {}, settings, origin)


def _overridden(
    spec_type: type[AnySpec], values: dict[str, Any], overrides: list[str] | tuple[str, ...], origin: str
) -> AnySpec:
    for override in overrides:
        key, value = read_override(override)
        set_dotted(values, key, value, origin)
    return validate(spec_type, values, origin)


def read_override(override: str) -> tuple[str, Any]:
    """The dotted key and the value of `key=value`.

    Raises:
        SpecError: no `=`, or a value that is no YAML.
    """
    key, found, text = override.partition("=")
    if not found:
        raise SpecError(f"override {override!r} is not of the form key=value, such as training.steps=100")
    try:
        return key.strip(), parse_value(text)
    except yaml.YAMLError as error:
        raise SpecError(f"override {override!r} is not valid YAML: {error}") from None


def read_mapping(path: str | Path) -> dict[str, Any]:
    """A YAML or JSON file that holds one mapping.

    Raises:
        SpecError: with file and line of the first problem.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        shipped = next((each for each in shipped_recipes() if each.name == str(path)), None)
        hint = f"; `didact init {shipped.name}` writes the recipe of that name" if shipped else ""
        if not hint and Path(path).parent.name == "serve":
            hint = "; expected a Ray Serve file, as docs/serving.md shows one and the repository has some in serve/"
        raise SpecError(f"{path} does not exist{hint}") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder; expected a YAML or JSON file") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8: {error}") from None
    return parse_mapping(text, str(path))


def read_recipe(recipe: str, origin: Path) -> dict[str, Any]:
    """The recipe that a search or a study starts from: looked for beside its file, then in the working directory.

    Raises:
        SpecError: it is in neither place, or holds no mapping.
    """
    places = (origin.parent / recipe, Path(recipe))
    for place in places:
        if place.is_file():
            return read_mapping(place)
    looked = " nor ".join(dict.fromkeys(str(place) for place in places))
    raise SpecError(f"{origin}: recipe: found {recipe!r}, but there is no {looked}")


def parse_mapping(text: str, origin: str) -> dict[str, Any]:
    """The mapping that a YAML or JSON text holds; `origin` is named in errors.

    Raises:
        SpecError: with the line of the first problem.
    """
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise SpecError(f"{origin} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise SpecError(f"{origin} must hold a mapping of settings; found {type(values).__name__}")
    return values


def set_dotted(values: dict[str, Any], key: str, value: Any, origin: str) -> None:
    """Set `a.b.c` in nested mappings; a list of named items (`data.sources.NAME.weight`) is entered by name or index.

    A mapping is merged into the one that is there; see `merge`.

    Raises:
        SpecError: the path passes through something that is neither mapping nor list.
    """
    target: Any = values
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        if isinstance(target, list):
            target = _item(target, part, key, origin)
        else:
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
        if not isinstance(target, dict | list):
            where = ".".join(parents[: depth + 1])
            raise SpecError(f"{origin}: cannot set {key}: {where} is {target!r}, not a mapping")
    if isinstance(target, list):
        old = _item(target, last, key, origin)
        if isinstance(old, dict) and isinstance(value, dict) and value:
            merge(old, value)
        else:
            target[next(index for index, each in enumerate(target) if each is old)] = value
    else:
        merge(target, {last: value})


def merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put changes into nested mappings. An empty one, a list or another `method` takes the place of what is there."""
    for key, change in changes.items():
        old = values.get(key)
        is_more = isinstance(change, dict) and change and change.get("method", "") in ("", _method(old))
        if isinstance(old, dict) and is_more:
            merge(old, change)
            continue
        values[key] = change
        if isinstance(values, Lined):
            values.lines.pop(key, None)


def _method(section: Any) -> Any:
    """Of an adapter; LoRA where it says none."""
    return section.get("method", LoraSpec.model_fields["method"].default) if isinstance(section, dict) else None


def parse_value(text: str) -> Any:
    """A value as YAML reads it, except that `1e-4` is a number as people expect; in quotes it is text."""
    value = yaml.safe_load(text) if text.strip() else None
    if isinstance(value, str) and text.strip()[0] not in "'\"":
        try:
            return float(value)
        except ValueError:
            return value
    return value


def to_json(spec: Spec) -> str:
    """The resolved spec as JSON; `load_spec` reads it back to an equal spec."""
    return json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def json_schema(spec_type: type[Spec]) -> str:
    """JSON schema for editors: completion and checks while writing a recipe."""
    return json.dumps(spec_type.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _item(items: list[Any], part: str, key: str, origin: str) -> Any:
    for item in items:
        if isinstance(item, dict) and item.get("name") == part:
            return item
    if part.isdigit() and int(part) < len(items):
        return items[int(part)]
    names = [item.get("name") for item in items if isinstance(item, dict)]
    raise SpecError(f"{origin}: cannot set {key}: no item {part!r}; expected one of {names} or an index")


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (plain YAML keeps the last one) and reads `1e-4` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key_node.start_mark)
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_map(self, node: yaml.MappingNode) -> Iterator[Lined]:
        lined = Lined()
        yield lined
        lined.update(self.construct_mapping(node))
        lined.lines = {self.construct_object(key): key.start_mark.line + 1 for key, _ in node.value}

    def construct_yaml_str(self, node: yaml.ScalarNode) -> Any:
        text = super().construct_yaml_str(node)
        if node.style is None and text[:1] in "+-.0123456789" and "e" in text.lower():
            try:
                return float(text)
            except ValueError:
                return text
        return text


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _UniqueKeyLoader.construct_yaml_map)
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:str", _UniqueKeyLoader.construct_yaml_str)
