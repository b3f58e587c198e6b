"""Change values in the text of a recipe, and leave its comments and everything else as they are."""

from typing import Any

import yaml

from didact.errors import SpecError
from didact.spec.load import parse_mapping, read_override, set_dotted


def with_overrides(text: str, overrides: list[str] | tuple[str, ...], origin: str) -> str:
    """The text of a recipe with `key=value` overrides written into it.

    Args:
        text: YAML that holds one mapping.
        overrides: as for `load_spec`.
        origin: the file (or other origin) named in errors.

    Raises:
        SpecError: as `load_spec`, for what can be told without checking the whole.
    """
    for override in overrides:
        key, value = read_override(override)
        wanted = parse_mapping(text, origin)
        set_dotted(wanted, key, value, origin)
        # As it was typed where that means the same inside the file, else as YAML writes the value.
        typed = override.partition("=")[2].strip()
        choices = [_flow(value)] if not typed or "#" in typed else [typed, _flow(value)]
        texts = [_replaced(text, key.split("."), written) for written in choices]
        meant = next((each for each in texts if _means(each, wanted)), None)
        if meant is None and isinstance(value, dict) and value:  # merged into what is there, entry by entry
            meant = with_overrides(text, [f"{key}.{name}={_flow(each)}" for name, each in value.items()], origin)
        if meant is None or not _means(meant, wanted):
            raise SpecError(f"{origin}: {key} cannot be changed in the text; change it in the file by hand")
        text = meant
    return text


def _means(text: str, values: dict[str, Any]) -> bool:
    try:
        return parse_mapping(text, "") == values
    except SpecError:
        return False


def _flow(value: Any) -> str:
    """A value on one line, as it may stand inside brackets too."""
    options = {"default_flow_style": True, "width": float("inf"), "allow_unicode": True, "sort_keys": False}
    return str(yaml.safe_dump([value], **options)).strip()[1:-1]


def _replaced(text: str, path: list[str], written: str) -> str:
    """`text` with the value at `path` replaced by `written`, or added where there is none."""
    node, key_end = yaml.compose(text, Loader=yaml.SafeLoader), 0
    while path and isinstance(node, yaml.CollectionNode):
        child = _child(node, path[0])
        if child is None:
            return _added(text, node, _nested(path, written))
        (key_end, node), path = child, path[1:]
    # A value in block style begins on another line than its key, where a value on one line cannot stand.
    start = key_end or node.start_mark.index
    before = text[:start] + (": " if key_end else "")
    end = _line_end(text, _end(node)) if _is_block(node) else _end(node)  # the last item's comment goes with it
    return before + _nested(path, written, braces=True) + text[end:]


def _child(node: yaml.CollectionNode, part: str) -> tuple[int, yaml.Node] | None:
    """Where the key of an entry ends (0 for an item of a list), and its value."""
    if isinstance(node, yaml.MappingNode):
        return next(((key.end_mark.index, value) for key, value in node.value if key.value == part), None)
    named = [item for item in node.value if isinstance(item, yaml.MappingNode) and _name(item) == part]
    return 0, named[0] if named else node.value[int(part)]


def _name(item: yaml.MappingNode) -> str | None:
    return next((value.value for key, value in item.value if key.value == "name"), None)


def _nested(path: list[str], written: str, braces: bool = False) -> str:
    """`a: {b: written}` for the path a.b; with braces around the whole where a path is left."""
    for part in reversed(path[0 if braces else 1 :]):
        written = f"{{{_flow(part)}: {written}}}"
    return written if braces else f"{_flow(path[0])}: {written}"


def _added(text: str, mapping: yaml.CollectionNode, entry: str) -> str:
    """`text` with an entry at the end of a mapping."""
    end = _end(mapping)
    if mapping.flow_style:
        last = _end(mapping.value[-1][1]) if mapping.value else mapping.start_mark.index + 1
        return text[:last] + (", " if mapping.value else "") + entry + text[last:]
    end = _line_end(text, end)  # after a comment on the last line
    return f"{text[:end]}\n{' ' * mapping.start_mark.column}{entry}{text[end:]}"


def _end(node: yaml.Node) -> int:
    """Where a node's own text ends; YAML counts the lines up to the next one to a block."""
    if _is_block(node):
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def _line_end(text: str, index: int) -> int:
    found = text.find("\n", index)
    return len(text) if found < 0 else found
