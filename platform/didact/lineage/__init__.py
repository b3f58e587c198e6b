"""Where a version comes from, down to the bytes of its data; and from data forward to what was trained on it.

    run folders (didact.runs) + versions (didact.registry) -> Graph -> trace -> Trace: a tree, JSON, a picture

Example:
    >>> from didact.lineage import Graph
    >>> graph = Graph()
    >>> graph.lead(graph.add("run", "demo", name="demo"), graph.add("version", "demo:1", name="demo", version=1))
    >>> list(graph.upstream(["version:demo:1"]).nodes)
    ['run:demo', 'version:demo:1']
"""

from didact.lineage.graph import Graph, Node
from didact.lineage.keeping import keep_lineage
from didact.lineage.records import Records
from didact.lineage.trace import Affected, Trace, trace

__all__ = ["Affected", "Graph", "Node", "Records", "Trace", "keep_lineage", "trace"]
