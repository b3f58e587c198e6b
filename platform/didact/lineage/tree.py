"""A trace on the terminal: what was asked, and under each thing what it was made of, or what was made of it."""

from collections.abc import Sequence
from typing import Literal

from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

from didact.display import visible
from didact.lineage.graph import KINDS, Graph
from didact.lineage.words import details, title

_STYLES = {"version": "bold", "alias": "bold", "run": "bold", "file": "cyan", "questions": "cyan", "verdict": "magenta"}
_LOUD = "NON-COMMERCIAL"


def as_tree(
    asked: str, direction: Literal["back", "forward"], roots: Sequence[str], graph: Graph, notes: Sequence[str]
) -> Tree:
    """Under each node its neighbours in `direction`; one that stands above already is named and not unfolded again."""
    heading = "comes from" if direction == "back" else "was used for"
    tree = Tree(Text(f"{visible(asked)} {heading}", style="bold"), guide_style="dim")
    seen: set[str] = set()
    for root in _sorted(roots, graph, direction):
        _unfold(tree, root, graph, direction, seen)
    if direction == "forward":
        _withdraw(tree, graph, roots)
    for note in notes:
        tree.add(Text(f"note: {visible(note)}", style="yellow"))
    return tree


def _unfold(tree: Tree, name: str, graph: Graph, direction: str, seen: set[str]) -> None:
    node = graph.nodes[name]
    line = Text(visible(title(node)), style=_STYLES.get(node.kind, ""))
    if node.kind == "version" and direction == "back":
        aliases = [graph.nodes[each].facts["name"] for each in graph.after(name) if each.startswith("alias:")]
        line.append("".join(f"  {alias}" for alias in aliases))
    if name in seen:
        line.append(" (above)", style="dim")
        tree.add(line)
        return
    seen.add(name)
    for detail in details(node):
        line.append(f"\n{visible(detail)}", style="bold red" if _LOUD in detail else "dim")
    branch = tree.add(line)
    following = graph.before(name) if direction == "back" else graph.after(name)
    for each in _sorted(following, graph, direction):
        _unfold(branch, each, graph, direction, seen)


def _sorted(names: Sequence[str], graph: Graph, direction: str) -> list[str]:
    """Going back, what holds the long branch (the adapter, the run) before what hangs on it; else as found."""
    if direction == "forward":
        return list(names)
    order = {"adapter": 0, "checkpoint": 0, "trial": 1}
    return sorted(names, key=lambda name: order.get(graph.nodes[name].kind, 2 + KINDS.index(graph.nodes[name].kind)))


def learned(roots: Sequence[str], graph: Graph) -> Graph:
    """What was made of them; questions are asked, and nothing is made of them but figures."""
    return graph.downstream(root for root in roots if graph.nodes[root].kind != "questions")


def _withdraw(tree: Tree, whole: Graph, roots: Sequence[str]) -> None:
    graph = learned(roots, whole)
    if measured := [node for node in whole.of_kind("version") if node.id not in graph.nodes]:
        tree.add(Text(f"measured by it, not trained on it: {', '.join(map(title, measured))}"))
    if not graph.nodes:
        return
    versions = graph.of_kind("version")
    aliases = [str(node.facts["name"]) for node in graph.of_kind("alias")]
    runs = len(graph.of_kind("run"))
    if not versions:
        tree.add(Text(f"{runs} {'run' if runs == 1 else 'runs'}; no registered version was made of it"))
        return
    listed = ", ".join(title(node) for node in versions)
    serving = f"; in service as {', '.join(aliases)}" if aliases else ""
    tree.add(Text(f"to withdraw with it: {escape(listed)}{serving}", style="bold"))
