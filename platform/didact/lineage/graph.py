"""What led to what: facts as nodes, joined by arrows from what was there first to what was made of it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal[
    "file",
    "source",
    "cache",
    "mixture",
    "sweep",
    "trial",
    "base",
    "run",
    "checkpoint",
    "adapter",
    "questions",
    "evaluation",
    "verdict",
    "version",
    "alias",
]
KINDS: tuple[Kind, ...] = (
    *("file", "source", "cache", "mixture", "sweep", "trial", "base", "run", "checkpoint", "adapter"),
    *("questions", "evaluation", "verdict", "version", "alias"),
)
"""In the order of the road: what stands first was there first."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Node:
    """One thing that is known."""

    id: str
    """Kind and what tells it apart, such as `adapter:SHA256`; the same in every trace."""
    kind: Kind
    facts: Mapping[str, Any]
    """Plain data; None is what was not recorded."""


@dataclass(slots=True)
class Graph:
    """Nodes and arrows, added as they are found. A node that is found again keeps what was known of it before."""

    nodes: dict[str, Node] = field(default_factory=dict)
    arrows: dict[tuple[str, str], None] = field(default_factory=dict)
    """From, to; in the order they were found."""

    def add(self, kind: Kind, key: str, **facts: Any) -> str:
        """Add a node; returns its id."""
        name = f"{kind}:{key}"
        known = self.nodes.get(name)
        kept = {} if known is None else {key: value for key, value in known.facts.items() if value is not None}
        self.nodes[name] = Node(name, kind, {**facts, **kept})
        return name

    def lead(self, before: str | None, after: str | None) -> None:
        """Add an arrow, where both ends are known."""
        if before is not None and after is not None and before != after:
            self.arrows[before, after] = None

    def before(self, node: str) -> list[str]:
        """What a node was made of, directly."""
        return [first for first, then in self.arrows if then == node]

    def after(self, node: str) -> list[str]:
        """What was made of a node, directly."""
        return [then for first, then in self.arrows if first == node]

    def only(self, names: Iterable[str]) -> "Graph":
        """The part that holds these nodes and the arrows between them."""
        kept = set(names)
        nodes = {name: node for name, node in self.nodes.items() if name in kept}
        return Graph(nodes, {arrow: None for arrow in self.arrows if set(arrow) <= kept})

    def upstream(self, names: Iterable[str]) -> "Graph":
        """Everything that led to these nodes, with them."""
        return self.only(_reached(names, self.before))

    def downstream(self, names: Iterable[str]) -> "Graph":
        """Everything that was made of these nodes, with them."""
        return self.only(_reached(names, self.after))

    def of_kind(self, kind: Kind) -> list[Node]:
        """Its nodes of a kind, in the order they were found."""
        return [node for node in self.nodes.values() if node.kind == kind]

    def to_plain(self) -> dict[str, Any]:
        """As plain data: `nodes` with id, kind and facts; `arrows` as pairs of ids."""
        return {
            "format": FORMAT,
            "nodes": [asdict(node) for node in self.nodes.values()],
            "arrows": [list(arrow) for arrow in self.arrows],
        }

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> "Graph":
        """What `to_plain` gave.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        if value["format"] != FORMAT:
            raise ValueError(f"format is {value['format']!r}, expected {FORMAT}")
        nodes = {each["id"]: Node(each["id"], each["kind"], dict(each["facts"])) for each in value["nodes"]}
        return cls(nodes, {(first, then): None for first, then in value["arrows"]})

    def to_json(self) -> str:
        """`to_plain` as indented JSON."""
        return json.dumps(self.to_plain(), indent=2, ensure_ascii=False) + "\n"


def _reached(names: Iterable[str], neighbours: Any) -> list[str]:
    reached: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name not in reached:
            reached[name] = None
            waiting += neighbours(name)
    return list(reached)
