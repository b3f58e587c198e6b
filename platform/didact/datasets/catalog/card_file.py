"""A card as the text of its file, laid out for people."""

from typing import Any

import yaml

from didact.datasets.catalog.card import Card

_WIDTH = 110
_STATED = ("name", "title", "good_for", "licence", "commercial")


def card_yaml(card: Card) -> str:
    """YAML that reads back to an equal card. What equals the defaults is left out, except what a reader looks for."""
    values = card.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    stated = {name: getattr(card, name) for name in _STATED}
    ordered = {name: {**values, **stated}[name] for name in Card.model_fields if name in values or name in stated}
    return yaml.dump(ordered, Dumper=_Layout, sort_keys=False, allow_unicode=True, width=_WIDTH)


class _Layout(yaml.SafeDumper):
    """Lists of short words on one line, texts of several lines as blocks, nothing quoted without need."""

    def represent_list(self, data: list[Any]) -> yaml.Node:
        short = all(isinstance(item, str) and len(item) < 40 and "\n" not in item for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=short and sum(map(len, data)) < 90)

    def represent_text(self, data: str) -> yaml.Node:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Layout.add_representer(list, _Layout.represent_list)
_Layout.add_representer(str, _Layout.represent_text)
